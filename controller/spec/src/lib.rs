//! `skyserve-spec`
