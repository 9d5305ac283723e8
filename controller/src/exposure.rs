//! How requests from outside reach endpoints. Local endpoints are reached where they listen; on a cluster somebody has
//! to make them reachable, and to learn where they are ([`KubernetesExposure`]).

mod kubernetes;
mod reach;

pub use kubernetes::{Bounds, KubernetesExposure, Settings};

use crate::core::Outside;
use std::collections::BTreeMap;
use std::future::Future;
use tokio::sync::{mpsc, watch};

/// An endpoint that is to be reached from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    pub port: u16,
    /// Tells a service from an earlier one of its name.
    pub incarnation: u64,
}

/// The endpoints of all services, by name; those of others that are ours are to go.
pub type Wanted = BTreeMap<String, Listening>;

/// Where a service is reached, told again whenever that changes.
pub type Exposed = (String, Outside);

/// Makes endpoints reachable from outside.
pub trait Exposure: Send + 'static {
    /// Keeps what is wanted reachable, and tells where it is, until it is dropped.
    fn keep(self, wanted: watch::Receiver<Wanted>, tell: mpsc::Sender<Exposed>) -> impl Future<Output = ()> + Send;
}

/// Endpoints are reached where they listen.
#[derive(Debug, Clone, Copy)]
pub struct WhereTheyListen;

impl Exposure for WhereTheyListen {
    async fn keep(self, _: watch::Receiver<Wanted>, _: mpsc::Sender<Exposed>) {}
}
