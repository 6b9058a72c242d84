//! The configuration from outside: what is refused and how that is said, which layer wins, and that the shipped
//! `config.toml` tells the truth.

use avatar_proxy::config::keys::KEYS;
use avatar_proxy::config::{Config, ConfigError, FileSource, Loaded, Origin, Sources};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

/// A configuration file that is gone with its test.
struct ConfigFile(PathBuf);

impl ConfigFile {
    fn with(text: impl AsRef<[u8]>) -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("avatar-proxy-{}-{}.toml", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("a temporary file");
        Self(path)
    }

    fn source(&self) -> FileSource {
        FileSource::Named(self.0.clone())
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn variables(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// Mattermost's address, which every configuration needs.
fn upstream() -> Vec<(&'static str, String)> {
    vec![("--upstream", "http://mattermost:8065".to_owned())]
}

fn load_text(text: &str) -> Result<Loaded, ConfigError> {
    let file = ConfigFile::with(text);
    Config::load(&Sources { file: file.source(), flags: upstream(), ..Sources::default() })
}

/// The messages about `text`, with the file's name taken away: `2: server.listen: ...`.
fn told_about(text: &str) -> Vec<String> {
    let file = ConfigFile::with(text);
    let sources = Sources { file: file.source(), flags: upstream(), ..Sources::default() };
    let prefix = format!("{}:", file.0.display());
    let error = Config::load(&sources).expect_err(text);
    error.problems().iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

/// That `line` in `section` is one problem, told with its line, its key and `told`.
fn check_refused(section: &str, line: &str, told: &str) {
    let key = line.split(" = ").next().expect("a key");
    let found = told_about(&format!("[{section}]\n{line}\n"));
    assert_eq!(found.len(), 1, "{line}: {found:?}");
    assert!(found[0].starts_with(&format!("2: {section}.{key}: ")) && found[0].contains(told), "{line}: {}", found[0]);
}

#[test]
fn f52_impossible_addresses_times_and_counts_are_told_with_what_would_be_right() {
    for (section, line, told) in [
        ("server", r#"listen = "nowhere""#, r#""nowhere" is not accepted; expected an IP address with a port"#),
        ("server", r#"listen = "localhost:8066""#, "expected an IP address with a port, such as 127.0.0.1:8066"),
        ("server", "listen = 8066", r#""8066" is not accepted"#),
        ("server", r#"listen = "127.0.0.1:65536""#, "expected an IP address"),
        ("server", r#"base_path = "chat""#, "it does not begin with /; expected a path"),
        ("server", r#"base_path = "/a//b""#, "it has an empty segment"),
        ("server", r#"base_path = "/a/../b""#, "it has a dot segment"),
        ("server", r#"base_path = "/%61""#, "it holds a character other than"),
        ("server", "workers = -1", r#""-1" is not accepted; expected a whole number from 0 (one per core) to 512"#),
        ("server", "workers = 513", "expected a whole number from 0"),
        ("server", "workers = 1.5", r#""1.5" is not accepted"#),
        ("server", "workers = true", r#""true" is not accepted"#),
        ("server", r#"keep_alive = "0s""#, r#""0s" is not accepted; expected a time above 0s and at most 1h"#),
        ("server", "keep_alive = 75", r#""75" is not accepted; expected a time"#),
        ("server", r#"keep_alive = "2h""#, "at most 1h"),
        ("server", r#"head_timeout = "61m""#, "at most 1h"),
        ("server", r#"body_idle_timeout = "0s""#, "expected a time above 0s"),
        ("server", r#"write_idle_timeout = "1d""#, "expected a time above 0s"),
        ("server", r#"shutdown_timeout = "soon""#, "expected a time"),
        ("server", "max_connections = -1", "expected a whole number from 0 (what the file limit allows)"),
        ("server", "max_connections_per_address = 1000001", "expected a whole number from 0 (a quarter of all"),
        ("server.tls", "key = [1]", "expected the name of a file in PEM"),
        (
            "server",
            r#"trusted_proxies = ["10.0.0.5/8"]"#,
            "10.0.0.5/8 has bits behind its prefix, the network is 10.0.0.0/8",
        ),
        ("server", r#"trusted_proxies = ["proxy"]"#, r#"["proxy"] is not accepted; expected a list of at most 256"#),
        ("server", "trusted_proxies = { a = 1 }", "this is not accepted; expected a list"),
        ("upstream", r#"url = "mattermost:8065""#, "it does not begin with http:// or https://; expected http://"),
        (
            "upstream",
            r#"url = "http://mattermost/chat""#,
            "it has a path; the path of Mattermost's SiteURL belongs into server.base_path",
        ),
        ("upstream", r#"url = "http://mattermost?a=b""#, "it has a query"),
        ("upstream", r#"url = "http://mattermost#a""#, "it has a fragment"),
        ("upstream", r#"url = """#, "it does not begin with http://"),
        ("upstream", r#"host = "a b""#, "its host is neither a name nor an address; expected keep, or a host"),
        ("upstream", r#"tls_name = "10.0.0.5""#, "it is an address; expected a host name"),
        ("upstream", r#"tls_name = "chat.example:443""#, "it is no host name; expected a host name"),
        ("upstream", r#"connect_timeout = "0ms""#, "a time above 0s"),
        ("upstream", r#"head_timeout = "-1s""#, "a time above 0s"),
        ("upstream", r#"idle_timeout = """#, "a time above 0s"),
        ("upstream", r#"picture_timeout = "1d""#, "a time above 0s"),
        ("upstream", "max_picture_requests = 0", "a whole number from 1 to 65536"),
        ("upstream", "max_connections = 0", "a whole number from 1 to 1000000"),
        ("upstream", r#"ca_file = "/nowhere/ca.pem""#, r#""/nowhere/ca.pem": it cannot be read: "#),
        (
            "upstream",
            r#"ca_file = "Cargo.toml""#,
            r#""Cargo.toml": it holds no certificate in PEM form; expected a file"#,
        ),
    ] {
        check_refused(section, line, told);
    }
}

#[test]
fn f52_impossible_choices_and_limits_are_told_with_what_would_be_right() {
    for (section, line, told) in [
        ("pictures", r#"users = "yes""#, r#""yes" is not accepted; expected true or false"#),
        ("pictures", "defaults = 1", "expected true or false"),
        ("pictures", r#"teams = "True""#, "expected true or false"),
        ("pictures", "emoji = []", "[] is not accepted; expected true or false"),
        ("pictures", "sizes = []", "[] is not accepted; expected 1 to 64 whole numbers from 1 to 4096"),
        (
            "pictures",
            "sizes = [32, 16]",
            r#"["32", "16"] is not accepted; expected 1 to 64 whole numbers from 1 to 4096, each above"#,
        ),
        ("pictures", "sizes = [16, 16]", "each above the one before"),
        ("pictures", "sizes = [0]", "from 1 to 4096"),
        ("pictures", "sizes = [4097]", "from 1 to 4096"),
        ("pictures", "sizes = [[16]]", "this is not accepted"),
        (
            "pictures",
            r#"formats = ["jpeg"]"#,
            r#"["jpeg"] is not accepted; expected a list of formats to negotiate, of which there are "avif" and "webp""#,
        ),
        ("pictures", r#"formats = ["webp", "webp"]"#, "webp is named twice"),
        ("pictures", r#"user_agents = { "" = ["webp"] }"#, "expected a table of at most 32 prefixes"),
        ("pictures", r#"user_agents = { X = ["png"] }"#, "expected a table of at most 32 prefixes"),
        ("pictures", r#"user_agents = ["webp"]"#, "expected a table of at most 32 prefixes"),
        (
            "cache",
            r#"sources = "64 megabytes""#,
            r#""64 megabytes" is not accepted; expected a size from 0 to 1024GiB"#,
        ),
        ("cache", r#"variants = "1025GiB""#, "expected a size from 0"),
        ("cache", "pixels = -1", "expected a size from 0"),
        ("cache", "max_entry = 0", "expected a size from 1KiB to 1GiB"),
        ("grants", r#"ttl = "3601s""#, "expected a time from 0s (ask every time) to 1h, such as 30s"),
        ("grants", "ttl = 30", r#""30" is not accepted; expected a time from 0s"#),
        ("grants", r#"ttl = "2h""#, r#""2h" is not accepted"#),
        ("grants", r#"learn = "no""#, "expected true or false"),
        ("grants", "listen = 1", "expected true or false"),
        ("grants", "memory = 0", "expected a size from 64KiB to 1024GiB"),
        ("grants", r#"memory = "1025GiB""#, "expected a size from 64KiB"),
        ("render", "permits = 4000", "a whole number from 0"),
        ("improve", "after_hits = 0", "a whole number from 1"),
        ("improve", "cpu_share = 0", "a number from 0.01 to 1"),
        ("improve", "cpu_share = 1.01", "a number from 0.01 to 1"),
        ("improve", "cpu_share = 0.255", "a number from 0.01 to 1"),
        ("pictures", "target = 101", "a number from 0 to 100"),
        ("pictures", "flat_target = -1", "a number from 0 to 100"),
        ("render", "queue = 0", "a whole number from 1 to 65536"),
        ("render", r#"queue_timeout = "0s""#, "a time above 0s"),
        ("limits", r#"source = "1B""#, "a size from 1KiB to 1GiB"),
        ("limits", "edge = 0", "a whole number from 1 to 65535"),
        ("limits", "edge = 65536", "a whole number from 1 to 65535"),
        ("limits", "pixels = 0", "a whole number from 1 to 1000000000"),
        ("limits", "pixels = 8e6", r#""8e6" is not accepted"#),
        ("limits", r#"decoder_memory = "1kB""#, "a size from 1MiB to 16GiB"),
        ("limits", "frames = 0", "a whole number from 1 to 100000"),
        ("limits", "frames = 100001", "a whole number from 1 to 100000"),
        ("limits", "frame_pixels = 0", "a whole number from 1 to 1000000000"),
        ("limits", r#"animation_time = "0s""#, "a time above 0s"),
        ("limits", "animation_time = 2", r#""2" is not accepted"#),
        (
            "limits",
            "caller_misses = 600",
            r#""600" is not accepted; expected 0 (no limit), or at most 1000000 in a time"#,
        ),
        ("limits", r#"caller_misses = "0/60s""#, "expected 0 (no limit)"),
        ("limits", r#"caller_misses = "1000001/60s""#, "at most 1000000"),
        ("limits", r#"caller_misses = "600/999ms""#, "a time from 1s to 1h"),
        ("limits", r#"address_misses = "6000/0s""#, "a time from 1s to 1h"),
        ("limits", r#"address_misses = "6000/61m""#, "a time from 1s to 1h, such as 600/60s"),
        ("headers", r#"cache_status = "on""#, "expected true or false"),
        ("headers", "server_timing = 2026-01-01", "expected true or false"),
        ("headers", "via = 1", "expected true or false"),
        (
            "admin",
            r#"listen = "none""#,
            "expected an IP address with a port, such as 127.0.0.1:9090, or nothing between the quotes",
        ),
        ("log", r#"level = "verbose""#, "expected off, error, warn, info, debug or trace"),
        ("log", r#"level = "INFO""#, "expected off, error"),
        ("log", r#"format = "text""#, "expected human or json"),
        ("log", "requests = 0", "expected true or false"),
    ] {
        check_refused(section, line, told);
    }
}

#[test]
fn f52_unknown_names_are_told_with_what_was_meant() {
    for (text, told) in [
        ("[server]\nlisten_on = 1", "2: server.listen_on: unknown key; did you mean server.listen?"),
        ("[server]\nworker = 4", "2: server.worker: unknown key; did you mean server.workers?"),
        (
            "[server]\npicture_timeout = \"1s\"",
            "2: server.picture_timeout: unknown key; did you mean upstream.picture_timeout?",
        ),
        ("[admin]\ncolour = 1", "2: admin.colour: unknown key; [admin] of version 0.1.0 has listen"),
        ("[server.tls]\nkeys = \"k\"", "2: server.tls.keys: unknown key; did you mean server.tls.key?"),
        ("[server.tcp]\nkey = \"k\"", "1: server.tcp: unknown key; [server] of version"),
        ("[server]\ntls.keys = \"k\"", "2: server.tls.keys: unknown key; did you mean server.tls.key?"),
        ("[server]\ntls = \"k\"", "2: server.tls: unknown key; did you mean server.tls.key?"),
        ("\n\n[chache]", "3: \"chache\": unknown section; did you mean [cache]?"),
        (
            "[purge]\nenabled = true",
            "1: \"purge\": unknown section; version 0.1.0 has server, upstream, pictures, cache,",
        ),
        ("workers = 4", "1: \"workers\": unknown key outside of a section; did you mean server.workers?"),
        ("server = 4", "1: \"server\": this is a section, written [server]"),
        ("[[server]]\nworkers = 4", "1: \"server\": this is a section, written [server]"),
    ] {
        let found = told_about(text);
        assert!(found.len() == 1 && found[0].starts_with(told), "{text}: {found:?}");
    }
}

#[test]
fn f52_what_is_not_toml_is_told_with_its_line() {
    for (text, line) in [
        ("[server]\nlisten = 127.0.0.1:8066", "2: this is not TOML: "),
        ("[server\n", "1: this is not TOML: "),
        ("[server]\nworkers = 1\nworkers = 2\n", "3: this is not TOML: duplicate key"),
        ("[log]\n[log]\n", "2: this is not TOML: "),
    ] {
        let found = told_about(text);
        assert!(found[0].starts_with(line), "{text}: {found:?}");
    }
}

#[test]
fn f52_files_that_cannot_be_read_are_told() {
    let missing = FileSource::Named("/nowhere/config.toml".into());
    let error = Config::load(&Sources { file: missing, ..Sources::default() }).expect_err("no such file");
    assert!(error.to_string().contains("/nowhere/config.toml: cannot be read: "), "{error}");
    assert_eq!(error.problems().len(), 1, "nothing is said of keys that the file may hold: {error}");

    for content in [vec![b'#'; (1 << 20) + 1], vec![0xff, 0xfe]] {
        let file = ConfigFile::with(content);
        let error = Config::load(&Sources { file: file.source(), ..Sources::default() }).expect_err("no text");
        assert!(error.to_string().contains("cannot be read: "), "{error}");
    }
}

#[test]
fn f52_every_problem_is_told_at_once() {
    let file = ConfigFile::with("[server]\nworkers = \"many\"\nlisten = \"x\"\n[cache]\nsource = \"1MiB\"\n");
    let sources = Sources {
        file: file.source(),
        environment: variables(&[
            ("AVATAR_PROXY__RENDER__QUEUE", "none"),
            ("AVATAR_PROXY__LOG__FORMATS", "json"),
            ("AVATAR_PROXY__log__format", "json"),
            ("AVATAR_PROXY__X", "y"),
        ]),
        flags: vec![("--listen", "8066".to_owned())],
    };
    let error = Config::load(&sources).expect_err("all of it");
    let found: Vec<_> = error.problems().iter().map(ToString::to_string).collect();
    let name = file.0.display();
    let expected = [
        format!("{name}:2: server.workers: \"many\" is not accepted"),
        format!("{name}:3: server.listen: \"x\" is not accepted"),
        format!("{name}:5: cache.source: unknown key; did you mean cache.sources?"),
        "AVATAR_PROXY__LOG__FORMATS: unknown variable; did you mean AVATAR_PROXY__LOG__FORMAT?".to_owned(),
        "AVATAR_PROXY__RENDER__QUEUE: render.queue: \"none\" is not accepted; expected a whole number".to_owned(),
        "AVATAR_PROXY__X: unknown variable; expected AVATAR_PROXY__SECTION__KEY, such as".to_owned(),
        "AVATAR_PROXY__log__format: unknown variable; did you mean AVATAR_PROXY__LOG__FORMAT?".to_owned(),
        "--listen: server.listen: \"8066\" is not accepted; expected an IP address".to_owned(),
        "upstream.url: nobody said where Mattermost is; expected http://".to_owned(),
    ];
    assert_eq!(found.len(), expected.len(), "{error}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
    assert!(error.to_string().starts_with("the configuration has 9 errors\n  "), "{error}");
}

#[test]
fn f52_keys_that_do_not_fit_together_are_told() {
    for (text, told) in [
        (
            "[admin]\nlisten = \"127.0.0.1:8066\"",
            "2: admin.listen: 127.0.0.1:8066 is taken by server.listen (127.0.0.1:8066)",
        ),
        ("[admin]\nlisten = \"0.0.0.0:8066\"", "2: admin.listen: 0.0.0.0:8066 is taken by server.listen"),
        ("[upstream]\ntls_name = \"chat.example\"", "2: upstream.tls_name: upstream.url is http, which has no TLS"),
        ("[server.tls]\nkey = \"k\"", "2: server.tls.key: server.tls.certificate is missing beside it; expected both"),
        (
            "[server]\ntls.certificate = \"c\"",
            "2: server.tls.certificate: server.tls.key is missing beside it; expected",
        ),
    ] {
        let found = told_about(text);
        assert!(found.len() == 1 && found[0].starts_with(told), "{text}: {found:?}");
    }
    for (url, told) in [
        (
            "http://127.0.0.1:8066",
            "--upstream: upstream.url: it leads back to avatar-proxy itself (server.listen is 127.0.0.1:8066)",
        ),
        ("http://localhost:8066", "--upstream: upstream.url: it leads back to avatar-proxy itself"),
        (
            "http://localhost:9090",
            "--upstream: upstream.url: it leads back to avatar-proxy itself (admin.listen is 127.0.0.1:9090)",
        ),
    ] {
        let sources = Sources { flags: vec![("--upstream", url.to_owned())], ..Sources::default() };
        let error = Config::load(&sources).expect_err(url);
        assert!(error.problems().len() == 1 && error.problems()[0].to_string().starts_with(told), "{error}");
    }
    assert!(load_text("[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"").is_ok());
    assert!(load_text("[admin]\nlisten = \"\"").is_ok_and(|loaded| loaded.config.admin.listen.is_none()));
}

#[test]
fn secrets_are_never_repeated() {
    for text in [
        "[upstream]\nurl = \"http://bob:pencil@mattermost\"",
        "[upstream]\nurl = \"http://bob:pencil\"",
        "[upstream]\nurl = \"htp://bob:pencil@mattermost\"",
        "[upstream]\nurl = \"http://mattermost/?token=pencil\"",
        "[upstream]\nurl = \"http://bob:pencil@mattermost\nhost = 1",
        "[upstream]\nurl = http://bob:pencil@mattermost",
        "[upstream]\nhost = \"bob:pencil@mattermost\"",
        "[server]\nlisten = \"http://bob:pencil@mattermost\"",
        "[server]\ntrusted_proxies = [\"http://bob:pencil@mattermost\"]",
    ] {
        let found = told_about(text).join("\n");
        assert!(!found.contains("pencil"), "{found}");
    }
    let sources = Sources {
        environment: variables(&[("AVATAR_PROXY__UPSTREAM__URL", "http://bob:pencil@mattermost")]),
        flags: vec![("--listen", "http://bob:pencil@mattermost".to_owned())],
        ..Sources::default()
    };
    let error = Config::load(&sources).expect_err("credentials");
    assert!(error.to_string().contains("AVATAR_PROXY__UPSTREAM__URL: upstream.url: it holds credentials"), "{error}");
    assert!(!format!("{error} {error:?}").contains("pencil"), "{error:?}");
}

#[test]
fn each_layer_goes_over_the_one_before() {
    let file = ConfigFile::with(
        "[server]\nlisten = \"127.0.0.1:1\"\nworkers = 1\n\n[cache]\nsources = \"1MiB\"\n[pictures.user_agents]\nX = [\"webp\"]\n",
    );
    let sources = Sources {
        file: file.source(),
        environment: variables(&[
            ("AVATAR_PROXY__SERVER__LISTEN", "127.0.0.1:2"),
            ("AVATAR_PROXY__SERVER__WORKERS", "2"),
            ("AVATAR_PROXY__PICTURES__SIZES", "8,16"),
            ("AVATAR_PROXY__ADMIN__LISTEN", ""),
            // Kubernetes sets these for a service of our name.
            ("AVATAR_PROXY_PORT", "tcp://10.0.0.1:80"),
            ("AVATAR_PROXY_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "/bin"),
        ]),
        flags: vec![("--listen", "127.0.0.1:3".to_owned()), ("--upstream", "https://mattermost/".to_owned())],
    };
    let loaded = Config::load(&sources).expect("a good configuration");
    let config = &loaded.config;
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.server.workers, 2);
    assert_eq!(config.cache.sources.bytes(), 1 << 20);
    assert_eq!(config.cache.variants, Config::default().cache.variants);
    assert_eq!(config.pictures.sizes, [8, 16]);
    assert_eq!(config.pictures.user_agents[0].prefix, "X");
    assert_eq!(config.admin.listen, None);

    let name = file.0.display().to_string();
    for (key, origin) in [
        ("server.listen", Origin::Flag("--listen")),
        ("server.workers", Origin::Environment("AVATAR_PROXY__SERVER__WORKERS".to_owned())),
        ("cache.sources", Origin::File { file: name, line: 6 }),
        ("cache.variants", Origin::Default),
    ] {
        assert_eq!(loaded.origin(key), Some(&origin), "{key}");
    }
}

#[test]
fn what_check_prints_is_a_configuration_of_the_same_meaning() {
    let file = ConfigFile::with("[server]\nworkers = 1\n");
    let sources = Sources {
        file: file.source(),
        environment: variables(&[("AVATAR_PROXY__CACHE__SOURCES", "1024KiB"), ("AVATAR_PROXY__LOG__LEVEL", "debug")]),
        flags: upstream(),
    };
    let loaded = Config::load(&sources).expect("a good configuration");
    let printed = loaded.describe();
    for line in [
        "[server]",
        "listen = \"127.0.0.1:8066\"  # default",
        &format!("workers = 1  # {}:2", file.0.display()),
        "url = \"http://mattermost:8065\"  # --upstream",
        "sources = \"1MiB\"  # AVATAR_PROXY__CACHE__SOURCES",
        "user_agents = { \"Mattermost Mobile/\" = [\"webp\"] }  # default",
    ] {
        assert!(printed.lines().any(|found| found == line), "{line} in\n{printed}");
    }
    assert!(printed.contains("\n# memory at most: base "), "{printed}");

    let again = ConfigFile::with(&printed);
    let again = Config::load(&Sources { file: again.source(), ..Sources::default() }).expect("what was printed");
    assert_eq!(again.config, loaded.config);
}

#[test]
fn certificates_are_read_with_the_configuration() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    let file = ConfigFile::with(parameters.self_signed(&key).expect("a certificate").pem());
    let text = format!("[upstream]\nca_file = \"{}\"\n", file.0.display());

    let loaded = load_text(&text).expect("a good configuration");

    let roots = loaded.config.upstream.ca_file.as_ref().expect("read");
    assert_eq!((roots.path(), roots.certificates().len()), (file.0.as_path(), 1));
    let printed = loaded.describe();
    assert!(printed.contains(&format!("\nca_file = \"{}\"  # ", file.0.display())), "{printed}");
    assert!(printed.contains("\n# warning: upstream.ca_file is for https"), "{printed}");
}

#[test]
fn grants_and_budgets_may_be_switched_off() {
    let text = "[grants]\nttl = 0\n[limits]\ncaller_misses = 0\naddress_misses = \"0\"\n";
    let config = load_text(text).expect("a good configuration").config;
    assert!(config.grants.ttl.is_zero());
    assert_eq!((config.limits.caller_misses, config.limits.address_misses), (None, None));
}

#[test]
fn check_warns_of_long_grants() {
    let printed = |ttl: &str| {
        let text = format!("[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[grants]\nttl = \"{ttl}\"\n");
        load_text(&text).expect("a good configuration").describe()
    };
    assert!(
        printed("1h").contains("\n# warning: grants.ttl is 1h: somebody who may no longer see"),
        "{}",
        printed("1h")
    );
    assert!(!printed("5m").contains("warning"), "{}", printed("5m"));
}

#[test]
fn the_shipped_file_holds_every_key_with_its_meaning_and_its_default() {
    let shipped = include_str!("../config.toml");
    let complete = shipped.replace("\n# url = ", "\nurl = ");
    assert_ne!(complete, shipped, "upstream.url stands there as an example");

    let file = ConfigFile::with(&complete);
    let loaded = Config::load(&Sources { file: file.source(), ..Sources::default() }).expect("the shipped file");
    assert_eq!(loaded.config, Config::default());

    let lines: Vec<&str> = complete.lines().collect();
    let mut documented = BTreeSet::new();
    for key in KEYS {
        let path = key.path();
        let Some(Origin::File { line, .. }) = loaded.origin(&path) else {
            panic!("{path} is missing");
        };
        assert_eq!(lines[line - 1], format!("{} = {}", key.name, key.show(&Config::default())), "{path}");
        assert!(lines[line - 2].starts_with("# "), "{path} has no comment");
        documented.insert(*line);
    }
    let assignments = lines.iter().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
    assert_eq!(assignments, documented.len());
}

#[test]
fn the_shipped_file_and_no_file_mean_the_same() {
    let shipped = FileSource::IfPresent(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml").into());
    let shipped = Config::load(&Sources { file: shipped, flags: upstream(), ..Sources::default() });
    let none = FileSource::IfPresent("/nowhere/config.toml".into());
    let none = Config::load(&Sources { file: none, flags: upstream(), ..Sources::default() });
    assert_eq!(shipped.expect("the shipped file").config, none.expect("no file").config);
}
