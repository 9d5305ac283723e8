//! `skyserve-scripts`
