//! `serve.controller`: whether the controller is highly available, and what it runs on.

use super::{Config, Warnings, given, known};
use crate::field::{Field, Result};
use crate::{Resource, read};

pub(super) fn read(field: &Field<'_>, config: &mut Config, warnings: &mut Warnings) -> Result<()> {
    for (name, field) in given(field)? {
        match name {
            "high_availability" => config.high_availability = field.boolean()?,
            "resources" => config.controller_resources = read_resources(&field, warnings)?,
            _ => warnings.about(&field, name, &known::CONTROLLER),
        }
    }
    Ok(())
}

fn read_resources(field: &Field<'_>, warnings: &mut Warnings) -> Result<Resource> {
    const HONOURED: [&str; 7] = ["cloud", "region", "infra", "cpus", "memory", "disk_size", "image_id"];
    let mut resources = read::resources::read(field, None)?;
    let first = resources.list.swap_remove(0);
    let mut disk_size = first.disk_size;
    for (name, field) in given(field)? {
        match name {
            "ports" => return Err(field.error("the controller's ports cannot be chosen")),
            "image_id" if first.docker_image().is_none_or(str::is_empty) => {
                return Err(field.error(format!(
                    "{} is not a container image: the controller runs in one, so write docker:NAME",
                    field.shown()
                )));
            }
            // The size that is SkyPilot's default for a machine is another one than a controller's default.
            "disk_size" => disk_size = disk_size.or(Some(read::resource::DISK_GB_DEFAULT)),
            name if !HONOURED.contains(&name) => warnings.about(&field, name, &[name]),
            _ => {}
        }
    }
    let Resource { infra, cpus, memory, image_id, .. } = first;
    Ok(Resource { infra, cpus, memory, disk_size, image_id, ..Resource::default() })
}
