//! `skyserve-recovery`
