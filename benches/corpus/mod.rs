//! The pictures that are measured, by class.

use avatar_proxy::variant::{Geometry, Offer, Recipe};
use std::collections::BTreeMap;
use std::path::Path;

/// The first word of a picture's name: photographs, illustrations, letters.
pub(crate) const CLASSES: [&str; 3] = ["photo", "illu", "letter"];

/// Pixels a side.
pub(crate) const EDGES: [u32; 6] = [24, 32, 40, 64, 96, 128];

/// The PNG files of `class` by name: those that are published here, and those of the folder that `AVATAR_PROXY_CORPUS`
/// names.
pub(crate) fn files(class: &str) -> BTreeMap<String, Vec<u8>> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/pictures");
    let further = std::env::var_os("AVATAR_PROXY_CORPUS");
    let mut found = BTreeMap::new();
    for folder in [Some(ours), further.map(Into::into)].into_iter().flatten() {
        for entry in std::fs::read_dir(&folder).expect("the folder of pictures is readable") {
            let path = entry.expect("the folder of pictures is readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(class) && path.extension().is_some_and(|extension| extension == "png") {
                found.insert(name, std::fs::read(&path).expect("the picture is readable"));
            }
        }
    }
    found
}

/// What a client asks for: a square of `edge` pixels at the usual quality.
pub(crate) fn recipe(edge: u32, offer: Offer) -> Recipe {
    let geometry = Geometry::Scale { width: edge, height: edge };
    Recipe { geometry, offer, quality: None, background: [255; 3], source_may_serve: false }
}
