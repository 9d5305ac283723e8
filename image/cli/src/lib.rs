//! `skyserve-cli`
