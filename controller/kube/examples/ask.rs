//! Names and a cluster, as the static binary sees them; for `image/test`.
//!
//! `ask NAME…` prints each name with its addresses by our resolver; `ask --libc NAME…` by the C library's;
//! `ask --cluster` the version of the kubeconfig's cluster.

use std::net::{IpAddr, ToSocketAddrs};
use std::process::ExitCode;

async fn by_us(name: &str) -> Result<Vec<IpAddr>, String> {
    skyserve_kube::resolve(name).await.map_err(|error| error.to_string())
}

fn by_libc(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| format!("{name}: {error}"))?;
    Ok(found.map(|address| address.ip()).collect())
}

async fn cluster() -> Result<String, String> {
    let cluster = skyserve_kube::connect(&skyserve_kube::Options::default()).await.map_err(|e| e.to_string())?;
    let version = cluster.client.apiserver_version().await.map_err(|e| skyserve_kube::chain(&e))?;
    Ok(format!("{} {}", cluster.name, version.git_version))
}

async fn answers(arguments: &[String]) -> Result<(), String> {
    match arguments.split_first() {
        Some((first, [])) if first == "--cluster" => println!("{}", cluster().await?),
        Some((first, names)) if first == "--libc" => {
            for name in names {
                println!("{name} {:?}", by_libc(name)?);
            }
        }
        _ => {
            for name in arguments {
                println!("{name} {:?}", by_us(name).await?);
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ask: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(answers(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ask: {message}");
            ExitCode::FAILURE
        }
    }
}
