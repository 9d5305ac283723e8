//! `skyserve-shim`
