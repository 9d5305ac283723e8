//! `skyserve-loadbalancer`
