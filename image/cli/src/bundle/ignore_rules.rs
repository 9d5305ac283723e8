//! Which files of a folder are left out, by SkyPilot's rule: those that the folder's `.skyignore`
//! names; without one, those that git ignores, if the folder is in a git repository.
//!
//! Patterns are git's. Unlike git itself, files that are tracked although a pattern names them are left
//! out too: finding them takes git, which need not be installed.

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::{Walk, WalkBuilder};
use std::path::Path;

const SKYIGNORE: &str = ".skyignore";

/// Goes through a folder in the order of names, parents before children, without what is ignored.
pub(super) fn walk(folder: &Path) -> Result<Walk, String> {
    let mut builder = WalkBuilder::new(folder);
    builder.standard_filters(false).follow_links(false).sort_by_file_name(Ord::cmp);
    let skyignore = folder.join(SKYIGNORE);
    if skyignore.is_file() {
        let rules = rules(folder, &skyignore)?;
        builder.filter_entry(move |entry| {
            let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
            entry.depth() == 0 || !rules.matched(entry.path(), is_folder).is_ignore()
        });
    } else {
        builder.git_ignore(true).git_exclude(true).git_global(true).parents(true).require_git(true);
    }
    Ok(builder.build())
}

/// A warning for a `.gitignore` that has no effect, because git would not read it either.
pub(super) fn warning(folder: &Path) -> Option<String> {
    let gitignore = folder.join(".gitignore");
    let in_repository = || folder.ancestors().any(|ancestor| ancestor.join(".git").exists());
    let without_effect = gitignore.is_file() && !folder.join(SKYIGNORE).is_file() && !in_repository();
    without_effect.then(|| {
        format!(
            "{} has no effect, because {} is in no git repository; name what is to stay out in a {SKYIGNORE} file",
            gitignore.display(),
            folder.display()
        )
    })
}

fn rules(folder: &Path, skyignore: &Path) -> Result<Gitignore, String> {
    let unusable = |error: ignore::Error| format!("cannot use {}: {error}", skyignore.display());
    let mut builder = GitignoreBuilder::new(folder);
    match builder.add(skyignore) {
        Some(error) => Err(unusable(error)),
        None => builder.build().map_err(unusable),
    }
}
