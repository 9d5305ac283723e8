//! Ports and port ranges.

use crate::Resource;
use crate::field::{Field, Result};
use skyserve_yaml::Value;

/// `service.ports`: one port.
pub(crate) fn service_port(field: &Field<'_>) -> Result<u16> {
    match field.node.value {
        Value::Int(port) => match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(field.error(format!("{port}: Port must be between 1 and 65535."))),
        },
        _ => Err(field.is_not("an integer")),
    }
}

/// `resources.ports`: a port, a range, several separated by commas, or a list of all that. The result
/// is sorted, with neighbours joined to ranges; `None` if there is no port in it.
pub(crate) fn resource_ports(field: &Field<'_>) -> Result<Option<Vec<String>>> {
    let mut ranges = Vec::new();
    match &field.node.value {
        Value::Int(_) | Value::String(_) => read_item(field, &mut ranges)?,
        Value::Sequence(_) => {
            for item in field.items()? {
                read_item(&item, &mut ranges)?;
            }
        }
        _ => return Err(field.is_not("a port, a range of ports, or a list of them")),
    }
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (from, to) in ranges {
        match joined.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    let shown = |(from, to)| if from == to { format!("{from}") } else { format!("{from}-{to}") };
    Ok((!joined.is_empty()).then(|| joined.into_iter().map(shown).collect()))
}

fn read_item(field: &Field<'_>, ranges: &mut Vec<(u16, u16)>) -> Result<()> {
    let text = match &field.node.value {
        Value::Int(port) => port.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err(field.is_not("a port or a range of ports")),
    };
    for token in text.split(',').map(str::trim).filter(|token| !token.is_empty()) {
        ranges.push(read_range(field, token)?);
    }
    Ok(())
}

fn read_range(field: &Field<'_>, token: &str) -> Result<(u16, u16)> {
    let port = |digits: &str| {
        let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u16>().ok()).flatten();
        number.filter(|port| *port > 0).ok_or_else(|| {
            field.error(format!(
                "Invalid port '{digits}' in {}. Please use a port number between 1 and 65535.",
                field.shown()
            ))
        })
    };
    if token.bytes().all(|byte| byte.is_ascii_digit()) {
        return port(token).map(|port| (port, port));
    }
    let wrong = || {
        field.error(format!(
            "Invalid port range {token}. Please use the format \"from-to\", in which from <= to. e.g. \"1-3\"."
        ))
    };
    let (from, to) = token.split_once('-').filter(|(_, to)| !to.contains('-')).ok_or_else(wrong)?;
    let (from, to) = (port(from)?, port(to)?);
    if from > to { Err(wrong()) } else { Ok((from, to)) }
}

/// The port every replica serves on: the one given, which every choice of resources must declare, or
/// the only one that all of them declare.
pub(crate) fn ingress_port(given: Option<u16>, choices: &[Resource], resources: &Field<'_>) -> Result<u16> {
    let mut chosen = given;
    for choice in choices {
        let ranges = choice.port_ranges();
        match (given, ranges.as_slice()) {
            (Some(_), []) => {
                return Err(resources.error("Must specify at least one ports in every replica resources."));
            }
            (Some(port), ranges) => {
                if !ranges.iter().any(|(from, to)| (*from..=*to).contains(&port)) {
                    return Err(resources.error(format!(
                        "The service port {port} specified in the service section is not found in some resources. \
                         Please check if the service port is correct or add the service port to replica resources."
                    )));
                }
            }
            (None, []) => return Err(no_port(resources)),
            (None, [(from, to)]) if from == to => match chosen {
                Some(port) if port != *from => {
                    return Err(resources.error(format!(
                        "Got multiple ports: {port} and {from} in different resources. Please specify the same port in \
                         all replicas, or explicitly set the service port in the `service.ports` section."
                    )));
                }
                _ => chosen = Some(*from),
            },
            (None, _) => {
                return Err(resources.error(
                    "Multiple ports specified in resources. Please specify the main port in the `service.ports` field.",
                ));
            }
        }
    }
    chosen.ok_or_else(|| no_port(resources))
}

fn no_port(resources: &Field<'_>) -> crate::SpecError {
    resources.error(
        "Must specify at least one ports in resources. Each replica will use the port specified as application ingress \
         port if only one port is specified in the replica resources. If there are multiple ports opened in the \
         replica, please set the `service.ports` field in the service config.",
    )
}
