//! `skyserve-api`
