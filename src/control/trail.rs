//! Every directory and name on the way to a file, through all symbolic links, and whether the file is a
//! mount of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// As many links as Linux follows.
const LINKS: usize = 40;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trail {
    /// Real directories in which a name of the trail is looked up, with device and inode.
    pub dirs: BTreeMap<PathBuf, Option<(u64, u64)>>,
    /// Names on the way: files, directories, links.
    pub names: BTreeSet<PathBuf>,
    /// The configuration files themselves.
    pub files: BTreeSet<PathBuf>,
    /// If the configuration is a directory: the real one, whose every YAML file counts.
    pub folder: Option<PathBuf>,
}

impl Trail {
    pub fn of(path: &Path) -> Trail {
        let mut trail = Trail::default();
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        if let Some(real) = trail.walk(&absolute) {
            if real.is_dir() {
                trail.watch_dir(&real);
                for file in yaml_files(&real) {
                    let real = trail.walk(&file);
                    trail.files.extend(real);
                }
                trail.folder = Some(real);
            } else {
                trail.files.insert(real);
            }
        }
        trail
    }

    /// The ways to several files at once.
    pub fn of_files<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Trail {
        let mut trail = Trail::default();
        for path in paths {
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
            let real = trail.walk(&absolute);
            trail.files.extend(real);
        }
        trail
    }

    /// Whether something that happens to `path` may change the configuration.
    pub fn concerns(&self, path: &Path) -> bool {
        let in_folder = || self.folder.as_deref().is_some_and(|folder| path.parent() == Some(folder) && is_yaml(path));
        self.names.contains(path) || self.files.contains(path) || self.dirs.contains_key(path) || in_folder()
    }

    /// Follows `path` from the root; `None` if it ends somewhere on the way. What is missing is watched
    /// for as well.
    fn walk(&mut self, path: &Path) -> Option<PathBuf> {
        let mut rest: Vec<OsString> = parts(path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            self.watch_dir(&at);
            let here = at.join(&name);
            self.names.insert(here.clone());
            if !std::fs::symlink_metadata(&here).ok()?.is_symlink() {
                at = here;
                continue;
            }
            links += 1;
            if links > LINKS {
                return None;
            }
            let target = std::fs::read_link(&here).ok()?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            rest.extend(parts(&target));
        }
        Some(at)
    }

    fn watch_dir(&mut self, dir: &Path) {
        if !self.dirs.contains_key(dir) {
            let inode = std::fs::metadata(dir).ok().map(|meta| (meta.dev(), meta.ino()));
            self.dirs.insert(dir.to_path_buf(), inode);
        }
    }
}

/// Last part first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    parts.rev().collect()
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn yaml_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| is_yaml(path)).collect()
}

/// Why edits of the file may never be seen: it is mounted by itself, and a rename on the other side
/// leaves the old inode here. A warning: not every platform shows it.
pub(crate) fn stale_mount(path: &Path) -> Option<String> {
    let real = std::fs::canonicalize(path).ok()?;
    let meta = std::fs::metadata(&real).ok().filter(|meta| meta.is_file())?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    verdict(&real, meta.nlink(), &mounts)
}

fn verdict(file: &Path, links: u64, mountinfo: &str) -> Option<String> {
    let mount = mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (Path::new(&unescaped(point)) == file).then(|| unescaped(root))
    });
    let deleted = mount.as_ref().is_some_and(|root| root.ends_with("//deleted"));
    if links == 0 || deleted {
        return Some(format!(
            "{} was replaced outside, but this process still sees the old file: it is mounted by itself. Mount its \
             directory instead, and restart to see the edit",
            file.display()
        ));
    }
    mount.map(|_| {
        format!(
            "{} is mounted by itself: an editor that replaces the file will not be seen. Mount its directory instead",
            file.display()
        )
    })
}

/// `\040` is a space, and so on.
fn unescaped(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                text.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                text.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_and_directory_on_the_way_is_on_the_trail() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("exists");
        std::fs::create_dir_all(root.join("v1")).expect("writable");
        std::fs::write(root.join("v1/a.yaml"), "x").expect("writable");
        symlink("v1", root.join("..data")).expect("writable");
        std::fs::create_dir(root.join("etc")).expect("writable");
        symlink("../..data/a.yaml", root.join("etc/a.yaml")).expect("writable");
        let trail = Trail::of(&root.join("etc/a.yaml"));
        assert_eq!(trail.files, [root.join("v1/a.yaml")].into());
        for dir in ["", "etc", "v1"] {
            assert!(trail.dirs.contains_key(root.join(dir).components().as_path()), "{dir}: {trail:?}");
        }
        for name in ["etc", "etc/a.yaml", "..data", "v1", "v1/a.yaml"] {
            assert!(trail.concerns(&root.join(name)), "{name}");
        }
        assert!(!trail.concerns(&root.join("etc/b.yaml")));
    }

    #[test]
    fn in_a_directory_every_yaml_file_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("exists");
        std::fs::write(root.join("a.yaml"), "x").expect("writable");
        let trail = Trail::of(&root);
        assert!(trail.concerns(&root.join("a.yaml")) && trail.concerns(&root.join("new.yml")));
        assert!(!trail.concerns(&root.join("notes.txt")));
    }

    #[test]
    fn a_link_to_itself_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        symlink("loop.yaml", dir.path().join("loop.yaml")).expect("writable");
        assert!(Trail::of(&dir.path().join("loop.yaml")).files.is_empty());
    }

    #[test]
    fn a_file_that_is_mounted_by_itself_is_said() {
        let file = Path::new("/etc/my app/switchback.yaml");
        let line = |root: &str| format!("36 35 8:1 {root} /etc/my\\040app/switchback.yaml rw - ext4 /dev/sda1 rw");
        assert_eq!(verdict(file, 1, "36 35 8:1 / /etc rw - ext4 /dev/sda1 rw"), None);
        let mounted = verdict(file, 1, &line("/home/ada/switchback.yaml")).expect("a warning");
        assert!(mounted.contains("Mount its directory"), "{mounted}");
        let stale = verdict(file, 0, &line("/home/ada/switchback.yaml")).expect("a warning");
        assert!(stale.contains("old file"), "{stale}");
        assert!(verdict(file, 1, &line("/home/ada/switchback.yaml//deleted")).expect("a warning").contains("old file"));
    }
}
