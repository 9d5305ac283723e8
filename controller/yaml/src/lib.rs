//! `skyserve-yaml`
