//! `skyserve-controller`
