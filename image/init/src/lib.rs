//! `skyserve-init`
