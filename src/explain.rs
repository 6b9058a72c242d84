//! `explain`: what would be made of one picture, and why: a table of everything that is tried, and a page to compare it by
//! eye.

use crate::config::{Config, UpstreamUrl};
use crate::identity::{ObjectId, PictureKind};
use crate::render::{self, Candidate, Fate, Pixels, Targets};
use crate::server::{negotiated_by, render_limits, targets, upstream_settings};
use crate::source::SourceInfo;
use crate::upstream::{AnswerBody, Gateway, PictureRequest, Upstream};
use crate::variant::hints::Hints;
use crate::variant::negotiation::negotiate;
use crate::variant::transform::{Sizes, Transform};
use crate::variant::{Encoded, Format, Offer, Plan, Recipe, Variant};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// A file, or an address that begins with `http://` or `https://`.
    pub picture: String,
    /// Fields of the client's request, each `Name: value`: they go to that address, and tell what the client is.
    pub fields: Vec<String>,
    /// What a client would write behind the `?`.
    pub query: String,
    /// The client's `Accept`; empty where it has none.
    pub accept: String,
    /// Where the page goes, if there is to be one.
    pub sheet: Option<PathBuf>,
}

/// Answers `question` by `config`, as a table for a terminal.
///
/// # Errors
/// The picture cannot be had or is none, or the question makes no sense.
pub fn explain(question: &Question, config: &Config) -> Result<String, Box<dyn Error>> {
    let source = source(question, config)?;
    let pixels = render::decode(&source, &render_limits(config))?;
    let info = &pixels.info;
    let mut told = format!(
        "{}: {} {} x {}{}, {} bytes\n",
        named(&question.picture),
        info.format.media_type(),
        info.width,
        info.height,
        if info.has_alpha { " with transparency" } else { "" },
        source.len()
    );
    let transform = question.transform(config)?;
    let agent = values(&question.fields, "user-agent").next().map(str::as_bytes);
    let offer = negotiate(transform.format(), [question.accept.as_bytes()], agent, &negotiated_by(config)).offer;
    let Plan::Render(recipe) = transform.plan(offer, info) else {
        told.push_str("It is sent as it is.\n");
        return Ok(told);
    };
    if recipe.offer == Offer::Moving {
        return moving(&source, info, &recipe, question, config, told);
    }
    let resized = render::resize(&pixels, recipe.geometry)?;
    let mut tried = render::candidates(&resized, &recipe, &targets(config))?;
    tried.sort_by_key(|candidate| candidate.bytes.len());
    let (width, height, target) = (resized.info.width, resized.info.height, targets(config).asked(&resized, &recipe));
    writeln!(told, "{width} x {height} for {}, to score {target}\n", question.client())?;
    told.push_str(&table(&tried));
    let least = tried.iter().find(|candidate| is_sent_at_last(candidate)).map_or(0, |sent| sent.bytes.len());
    if recipe.source_may_serve && source.len() <= least {
        told.push_str("\nThe picture itself is no longer than that, and is sent as it is.\n");
    }
    if let Some(file) = &question.sheet {
        let mut figures = figure("image/png", &exact(&resized, &recipe)?, "what all are compared with");
        figures.extend(tried.iter().map(shown));
        std::fs::write(file, sheet(&figures, &told))?;
    }
    Ok(told)
}

/// What becomes of all frames: one animated WebP, or the picture as it is.
fn moving(
    source: &[u8],
    info: &SourceInfo,
    recipe: &Recipe,
    question: &Question,
    config: &Config,
    mut told: String,
) -> Result<String, Box<dyn Error>> {
    let started = Instant::now();
    // The source may not serve here, or nothing would be told of what is longer.
    let told_anyway = Recipe { source_may_serve: false, ..*recipe };
    let rendered = render::animate(source, &told_anyway, &targets(config), &render_limits(config));
    let took = started.elapsed().as_secs_f64() * 1000.0;
    let (ours, why) = match rendered {
        Ok(Variant::Encoded(encoded)) => (Some(encoded), String::new()),
        Ok(Variant::SourceForNow(_) | Variant::SourceIsBest) => (None, String::new()),
        Err(error) => (None, format!(" ({error})")),
    };
    let is_sent = |ours: &Encoded| {
        let kept = ours.bytes.len() as u64 <= config.cache.max_entry.bytes();
        kept && !(recipe.source_may_serve && ours.bytes.len() >= source.len())
    };
    let ours_is_sent = ours.as_deref().is_some_and(is_sent);
    let mark = |sent: bool| if sent { "   <- sent" } else { "" };
    let bold = |sent: bool| if sent { "<b>sent</b> " } else { "" };
    writeln!(told, "All frames, for {}\n   bytes      ms  format  how", question.client())?;
    let mut figures = String::new();
    if let Some(ours) = &ours {
        let (bytes, mark) = (ours.bytes.len(), mark(ours_is_sent));
        writeln!(told, "{bytes:>8} {took:>7.2}  webp    every frame{mark}")?;
        figures += &figure("image/webp", &ours.bytes, &format!("{}{bytes} B<br>webp every frame", bold(ours_is_sent)));
    }
    let (media_type, bytes) = (info.format.media_type(), source.len());
    let format = media_type.trim_start_matches("image/");
    writeln!(told, "{bytes:>8}       -  {format:<6}  as it is{}{why}", mark(!ours_is_sent))?;
    figures += &figure(media_type, source, &format!("{}{bytes} B<br>{format} as it is", bold(!ours_is_sent)));
    if let Some(file) = &question.sheet {
        std::fs::write(file, sheet(&figures, &told))?;
    }
    Ok(told)
}

impl Question {
    /// What is asked, as the proxy reads it.
    fn transform(&self, config: &Config) -> Result<Transform, Box<dyn Error>> {
        let mut hints = Hints::default();
        if config.pictures.client_hints {
            for (name, value) in self.fields.iter().filter_map(|field| split(field)) {
                hints.take(&name.to_ascii_lowercase(), value.as_bytes());
            }
        }
        let sizes = Sizes::new(config.pictures.sizes.clone())?;
        let transform = Transform::parse_hinted(&self.query, &sizes, &hints)?.transform;
        Ok(if shows_emoji(&self.picture) { transform.of(PictureKind::Emoji) } else { transform })
    }

    /// The client, in words.
    fn client(&self) -> String {
        let agent = values(&self.fields, "user-agent").next().map(|agent| format!(" and User-Agent: {agent}"));
        let accept = if self.accept.is_empty() { "no Accept".to_owned() } else { format!("Accept: {}", self.accept) };
        accept + &agent.unwrap_or_default()
    }
}

/// The values of the fields of that name in lower case, among many each `Name: value`.
pub(crate) fn values<'a>(fields: &'a [String], name: &str) -> impl Iterator<Item = &'a str> {
    fields
        .iter()
        .filter_map(|field| split(field))
        .filter(move |(each, _)| each.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn split(field: &str) -> Option<(&str, &str)> {
    field.split_once(':').map(|(name, value)| (name.trim(), value.trim()))
}

/// Whether an address, or the place of a file, ends like the route of an emoji, which moves where nobody says otherwise.
fn shows_emoji(picture: &str) -> bool {
    let path = named(picture);
    let mut segments = path.rsplit('/');
    segments.next() == Some("image")
        && segments.next().is_some_and(|id| ObjectId::parse(id.as_bytes()).is_some())
        && segments.next() == Some("emoji")
}

fn source(question: &Question, config: &Config) -> Result<Bytes, Box<dyn Error>> {
    let at_most = config.limits.source.bytes();
    if !["http://", "https://"].iter().any(|scheme| question.picture.starts_with(scheme)) {
        let file = std::fs::File::open(&question.picture).map_err(|error| format!("{}: {error}", question.picture))?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, at_most + 1), &mut bytes)?;
        return if bytes.len() as u64 > at_most { Err("longer than limits.source".into()) } else { Ok(bytes.into()) };
    }
    actix_web::rt::System::new().block_on(fetched(question, config, at_most))
}

/// The picture without what may be a secret: who asks for it, and the query of its address.
fn named(picture: &str) -> String {
    let address = picture.split_once("://").filter(|_| picture.starts_with("http"));
    let Some((scheme, rest)) = address else { return picture.to_owned() };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/{path}")
}

/// The picture behind an address, asked for as the proxy would ask.
async fn fetched(question: &Question, config: &Config, at_most: u64) -> Result<Bytes, Box<dyn Error>> {
    let uri: http::Uri = question.picture.parse()?;
    let authority = uri.authority().ok_or("an address without a host")?;
    let mut config = config.clone();
    config.upstream.url = UpstreamUrl::parse(&format!("{}://{authority}", uri.scheme_str().unwrap_or("http")))
        .map_err(|_| "not an address of http or https")?;
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
    for field in &question.fields {
        let (name, value) = split(field).ok_or("a --header is written \"Name: value\"")?;
        headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
    }
    let upstream = Upstream::new(&Gateway::new(upstream_settings(&config))?)?;
    let request = PictureRequest { path: uri.path().to_owned(), query: uri.query().map(str::to_owned), headers };
    let answer = upstream.picture(&request, None).await?;
    if !answer.status.is_success() {
        return Err(format!("{}: {}", named(&question.picture), answer.status).into());
    }
    match answer.read_up_to(at_most).await?.body {
        AnswerBody::Complete(bytes) => Ok(bytes),
        AnswerBody::Partial(..) => Err("longer than limits.source".into()),
    }
}

/// The pixels that all the others are compared with.
fn exact(resized: &Pixels, recipe: &Recipe) -> Result<Bytes, Box<dyn Error>> {
    let recipe = Recipe { offer: Offer::Only(Format::Png), quality: Some(100), source_may_serve: false, ..*recipe };
    match render::encode(resized, &recipe, &Targets::default(), 0)? {
        Variant::Encoded(encoded) => Ok(encoded.bytes.clone()),
        Variant::SourceForNow(_) | Variant::SourceIsBest => Err("no encoding of its own".into()),
    }
}

const fn is_sent_at_last(candidate: &Candidate) -> bool {
    matches!(candidate.fate, Fate::Improved | Fate::FirstAndLast)
}

fn table(tried: &[Candidate]) -> String {
    let mut table = String::from("   bytes   score      ms  format  how\n");
    for candidate in tried {
        let score = candidate.score.map_or_else(|| "-".to_owned(), |score| format!("{score:.2}"));
        let fate = match candidate.fate {
            Fate::First => "   <- first answer",
            Fate::Improved => "   <- sent when it was asked for again",
            Fate::FirstAndLast => "   <- first answer, and the best",
            Fate::Passed => "",
        };
        let took = candidate.took.as_secs_f64() * 1000.0;
        let (bytes, format) = (candidate.bytes.len(), candidate.format.name());
        writeln!(table, "{bytes:>8} {score:>7} {took:>7.2}  {format:<6}  {}{fate}", candidate.name)
            .expect("a String takes what is written");
    }
    table
}

/// A picture as large as it is and four times so, on white and on dark.
fn figure(media_type: &str, bytes: &[u8], caption: &str) -> String {
    let image = format!("<img src=\"data:{media_type};base64,{}\" alt=\"\">", STANDARD.encode(bytes));
    format!(
        "<figure><div>{image}{image}</div><div class=\"dark\">{image}{image}</div><figcaption>{caption}</figcaption>\
         </figure>\n"
    )
}

fn shown(candidate: &Candidate) -> String {
    let score = candidate.score.map_or_else(String::new, |score| format!(", {score:.1}"));
    let sent = if is_sent_at_last(candidate) { "<b>sent</b> " } else { "" };
    let (format, bytes, name) = (candidate.format, candidate.bytes.len(), escaped(&candidate.name));
    figure(format.media_type(), &candidate.bytes, &format!("{sent}{bytes} B{score}<br>{} {name}", format.name()))
}

/// A page that shows `figures` side by side.
fn sheet(figures: &str, told: &str) -> String {
    let told = escaped(told);
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>avatar-proxy explain</title>\n<style>{STYLE}</style>\n\
         <pre>{told}</pre>\n<main>\n{figures}</main>\n"
    )
}

const STYLE: &str = "body{font:14px system-ui;margin:2em}main{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0}\
    div{display:flex;align-items:end;gap:8px;padding:8px;background:#fff;border:1px solid #ddd}.dark{background:#222}\
    img:last-child{zoom:4;image-rendering:pixelated}figcaption{max-width:20em;padding:4px}";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHOTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/pictures/photo-ski-chelsea.png");

    fn question(picture: &str, query: &str) -> Question {
        Question {
            picture: picture.to_owned(),
            fields: Vec::new(),
            query: query.to_owned(),
            accept: "image/webp,*/*".to_owned(),
            sheet: None,
        }
    }

    #[test]
    fn everything_that_is_tried_is_told() {
        let file = std::env::temp_dir().join(format!("avatar-proxy-explain-{}.html", std::process::id()));
        let question = Question { sheet: Some(file.clone()), ..question(PHOTO, "size=32") };
        let told = explain(&question, &Config::default()).expect("a picture");
        assert!(
            told.contains("image/png 128 x 128")
                && told.contains("\n32 x 32 for Accept: image/webp,*/*, to score 80\n"),
            "{told}"
        );
        assert_eq!(told.matches("first answer").count(), 1, "{told}");
        let bytes: Vec<usize> = told.lines().filter_map(|line| line.get(..8)?.trim().parse().ok()).collect();
        assert!(bytes.len() > 3 && bytes.is_sorted(), "{told}");
        let page = std::fs::read_to_string(&file).expect("the page was written");
        std::fs::remove_file(&file).expect("it is ours");
        // One more than was tried, each twice on both grounds.
        assert_eq!(page.matches("<img ").count(), 4 * (bytes.len() + 1));
        assert_eq!(page.matches("<b>sent</b>").count(), 1);
    }

    /// A moving GIF of so many frames, a bar that goes over noise.
    fn reel(frames: u16) -> Vec<u8> {
        let mut file = Vec::new();
        let palette: Vec<u8> = (0..=255).flat_map(|i: u8| [i, i.wrapping_mul(7), 255 - i]).collect();
        let mut encoder = gif::Encoder::new(&mut file, 40, 40, &palette).expect("a header");
        for n in 0..frames {
            let pixel = |i: u16| if i % 40 == n { 255 } else { i.wrapping_mul(40_503).to_le_bytes()[1] };
            let buffer: Vec<u8> = (0..40 * 40).map(pixel).collect();
            let frame = gif::Frame { width: 40, height: 40, delay: 5, buffer: buffer.into(), ..gif::Frame::default() };
            encoder.write_frame(&frame).expect("a frame");
        }
        drop(encoder);
        file
    }

    #[test]
    fn of_a_moving_picture_all_frames_are_told() {
        let place = |name: &str| std::env::temp_dir().join(format!("avatar-proxy-{name}-{}", std::process::id()));
        let (picture, page) = (place("reel.gif"), place("reel.html"));
        std::fs::write(&picture, reel(6)).expect("a temporary file");
        let told = |query: &str, config: &Config| {
            let question = Question { sheet: Some(page.clone()), ..question(&picture.to_string_lossy(), query) };
            explain(&question, config).expect("a picture")
        };
        let moving = told("animated=1&size=16", &Config::default());
        assert!(moving.contains("webp    every frame   <- sent\n"), "{moving}");
        assert!(moving.ends_with("gif     as it is\n"), "{moving}");
        let sheet = std::fs::read_to_string(&page).expect("the page was written");
        assert_eq!((sheet.matches("<img ").count(), sheet.matches("<b>sent</b>").count()), (8, 1));
        assert!(sheet.contains("data:image/gif;base64,") && sheet.contains("data:image/webp;base64,"));
        let mut few = Config::default();
        few.limits.frames = 5;
        let refused = told("animated=1", &few);
        assert!(refused.ends_with("gif     as it is   <- sent (over a limit: frames)\n"), "{refused}");
        let mut small = Config::default();
        small.cache.max_entry = crate::config::ByteSize::new(64);
        let too_large = told("animated=1&size=16", &small);
        assert!(too_large.contains("every frame\n") && too_large.ends_with("as it is   <- sent\n"), "{too_large}");
        let still = told("size=16", &Config::default());
        assert!(still.contains("first answer") && !still.contains("every frame"), "{still}");
        for file in [picture, page] {
            std::fs::remove_file(file).expect("it is ours");
        }
    }

    #[test]
    fn an_emoji_moves_where_nobody_says_otherwise() {
        let folder = std::env::temp_dir().join(format!("avatar-proxy-explain-{}", std::process::id()));
        let emoji = folder.join("api/v4/emoji/ge45wmpse3g8umtziei4q749th/image");
        std::fs::create_dir_all(emoji.parent().expect("a folder")).expect("a temporary folder");
        std::fs::write(&emoji, reel(6)).expect("a temporary file");
        let told =
            |query: &str| explain(&question(&emoji.to_string_lossy(), query), &Config::default()).expect("a picture");
        assert!(told("size=16").contains("every frame"));
        assert!(!told("size=16&animated=0").contains("every frame"));
        std::fs::remove_dir_all(folder).expect("it is ours");
        for (picture, is_emoji) in [
            ("https://chat.example/sub/api/v4/emoji/ge45wmpse3g8umtziei4q749th/image?_=1", true),
            ("https://chat.example/api/v4/users/ge45wmpse3g8umtziei4q749th/image", false),
            ("https://chat.example/api/v4/emoji/name/image", false),
            ("https://chat.example/api/v4/emoji/ge45wmpse3g8umtziei4q749th/image/", false),
            ("image", false),
        ] {
            assert_eq!(shows_emoji(picture), is_emoji, "{picture}");
        }
    }

    #[test]
    fn the_client_is_known_by_what_its_request_says() {
        let told = |accept: &str, fields: &[&str], config: &Config| {
            let fields = fields.iter().map(|&field| field.to_owned()).collect();
            let question = Question { accept: accept.to_owned(), fields, ..question(PHOTO, "size=32") };
            explain(&question, config).expect("a picture")
        };
        let mobile = ["User-Agent: Mattermost Mobile/2.43.0", "Sec-CH-DPR: 2"];
        let mut config = Config::default();
        let webp = told("", &mobile, &config);
        assert!(webp.contains("32 x 32 for no Accept and User-Agent: Mattermost Mobile/2.43.0"), "{webp}");
        assert!(webp.contains("  webp    ") && !webp.contains("  jpeg    "), "{webp}");
        assert!(!told("*/*", &[], &config).contains("  webp    "));
        assert!(!told("image/png", &mobile, &config).contains("  webp    "));
        config.pictures.client_hints = true;
        assert!(told("", &mobile, &config).contains("64 x 64 for"));
        config.pictures.user_agents = Vec::new();
        assert!(!told("", &mobile, &config).contains("  webp    "));
    }

    #[test]
    fn what_may_be_secret_is_not_repeated() {
        for (picture, told) in [
            ("https://me:secret@chat.example/a/b?access_token=x#y", "https://chat.example/a/b"),
            ("http://chat.example", "http://chat.example/"),
            ("a?b.png", "a?b.png"),
        ] {
            assert_eq!(named(picture), told);
        }
    }

    #[test]
    fn what_cannot_be_explained_says_why() {
        for (picture, query, why) in [
            ("/nowhere/at/all.png", "", "No such file"),
            (PHOTO, "size=none", "size"),
            (concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "", "does not decode"),
            ("http://127.0.0.1:1/picture", "", "upstream cannot be reached"),
        ] {
            let error = explain(&question(picture, query), &Config::default()).expect_err(picture);
            assert!(error.to_string().contains(why), "{picture}: {error}");
        }
    }
}
