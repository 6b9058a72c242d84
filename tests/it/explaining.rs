//! `explain`, as somebody types it: by the configuration that would serve, without a Mattermost.

use crate::process::{Folder, PROGRAM};
use std::process::Command;

const PHOTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/pictures/photo-ski-chelsea.png");

fn explain(folder: &Folder, variable: Option<(&str, &str)>) -> (bool, String) {
    let mut command = Command::new(PROGRAM);
    command.args(["explain", PHOTO, "--size", "16"]).current_dir(folder.path("")).env_clear().envs(variable);
    let output = command.output().expect("the program starts");
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(told).expect("text"))
}

#[test]
fn a_picture_is_explained_by_the_file_and_the_environment_that_would_serve() {
    let folder = Folder::new();
    let by_default = explain(&folder, None);
    assert!(by_default.0 && by_default.1.contains("\n16 x 16 for "), "{}", by_default.1);
    folder.put("config.toml", "[pictures]\nsizes = [24]\n");
    let by_file = explain(&folder, None);
    assert!(by_file.0 && by_file.1.contains("\n24 x 24 for "), "{}", by_file.1);
    let by_variable = explain(&folder, Some(("AVATAR_PROXY__PICTURES__SIZES", "20")));
    assert!(by_variable.0 && by_variable.1.contains("\n20 x 20 for "), "{}", by_variable.1);
    folder.put("config.toml", "[pictures]\nsizes = [24, 16]\n");
    let refused = explain(&folder, None);
    assert!(!refused.0 && refused.1.contains("pictures.sizes"), "{}", refused.1);
}
