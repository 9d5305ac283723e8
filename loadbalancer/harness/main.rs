//! A load balancer in a process of its own, for the integration tests: they kill it, hand it
//! descriptors, and watch what it does on signals. Settings come as `name=value` arguments.
#![forbid(unsafe_code)]

use skyserve_loadbalancer::{Limits, Options, inherited_listeners, run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = Options {
        inherited: inherited_listeners(),
        notify_socket: std::env::var_os("NOTIFY_SOCKET").map(Into::into),
        threads: 2,
        ..Options::default()
    };
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').ok_or_else(|| format!("{argument}: not name=value"))?;
        match name {
            "routes_file" => options.routes_file = value.into(),
            "report_socket" => options.report_socket = value.into(),
            "ready_while_draining" => options.ready_while_draining = value.parse()?,
            "has_successor" => options.has_successor = value.parse()?,
            "metrics_address" => options.metrics_address = value.parse()?,
            limit => set_limit(&mut options.limits, limit, value.parse()?)?,
        }
    }
    Ok(run(options)?)
}

fn set_limit(limits: &mut Limits, name: &str, value: u64) -> Result<(), String> {
    let count = usize::try_from(value).map_err(|error| error.to_string())?;
    match name {
        "uri_bytes_max" => limits.uri_bytes_max = count,
        "header_read_ms_max" => limits.header_read_ms_max = value,
        "client_idle_ms_max" => limits.client_idle_ms_max = value,
        "body_idle_ms_max" => limits.body_idle_ms_max = value,
        "tunnel_idle_ms_max" => limits.tunnel_idle_ms_max = value,
        "connections_max" => limits.connections_max = count,
        "queue_requests_max" => limits.queue_requests_max = count,
        "queue_wait_ms_max" => limits.queue_wait_ms_max = value,
        "upstream_idle_ms_max" => limits.upstream_idle_ms_max = value,
        "continue_wait_ms_max" => limits.continue_wait_ms_max = value,
        "drain_ms_max" => limits.drain_ms_max = value,
        "drain_quiet_ms" => limits.drain_quiet_ms = value,
        "successor_settle_ms" => limits.successor_settle_ms = value,
        "table_check_ms" => limits.table_check_ms = value,
        unknown => return Err(format!("{unknown}: no such setting")),
    }
    Ok(())
}
