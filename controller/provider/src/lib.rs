//! `skyserve-provider`
