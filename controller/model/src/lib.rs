//! `skyserve-model`
