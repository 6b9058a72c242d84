//! Files up and down (`api4/file.go`, `upload_file_streaming` and `http.ServeContent`): what large bodies pass through.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::http::StatusCode;
use actix_web::http::header::HttpDate;
use actix_web::web;
use bytes::Bytes;
use serde_json::{Value, json};

use super::answers::Answer;
use super::credentials;
use super::files::{StoredUpload, single_range};
use super::ids::new_id;
use super::server::{Exchange, collect};
use super::upload;

/// What a step found, or the answer that ends the request there.
type Answered<T = Answer> = Result<T, Answer>;

/// `uploadFileStream`: one raw body, or the files of a form.
pub(super) async fn upload(exchange: &Exchange, payload: &mut web::Payload) -> Answered {
    let session = exchange.session()?;
    let limit = exchange.shared.options.max_file_size;
    let chunks = collect(payload, limit + 512).await.map_err(|_| {
        let message = "Unable to upload file. File is too large.";
        Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "api.file.upload_file.too_large_detailed.app_error", message)
    })?;
    let content_type = credentials::text(&exchange.headers, "content-type");
    let is_form = content_type.starts_with("multipart/");
    let files: Vec<(String, Vec<Bytes>)> = if is_form {
        let parts = upload::parts(content_type, &Bytes::from(chunks.concat())).ok_or_else(|| {
            let message = "Failed to read the form.";
            Answer::error(StatusCode::BAD_REQUEST, "api.file.upload_file.read_form_value.app_error", message)
        })?;
        let named = parts.into_iter().filter(|part| !part.file_name.is_empty());
        named.map(|part| (part.file_name, vec![part.bytes])).collect()
    } else {
        let name = exchange.query.get("filename").ok_or_else(|| Answer::bad_parameter("filename"))?;
        vec![(name.to_owned(), chunks)]
    };
    let mut town = exchange.town();
    let channel = exchange.query.get("channel_id").unwrap_or_default();
    let mut infos = Vec::new();
    for (name, chunks) in files {
        let create_at = town.next_stamp();
        let file = StoredUpload { id: new_id(), user_id: session.user_id.clone(), name, create_at, chunks };
        infos.push(info(&file, channel));
        town.files.add(file);
    }
    let client_ids = if is_form { json!([]) } else { Value::Null };
    Ok(Answer::json(StatusCode::CREATED, &json!({"file_infos": infos, "client_ids": client_ids})))
}

/// `model.FileInfo`.
fn info(file: &StoredUpload, channel: &str) -> Value {
    json!({
        "id": file.id, "user_id": file.user_id, "channel_id": channel, "create_at": file.create_at,
        "update_at": file.create_at, "delete_at": 0, "name": file.name,
        "extension": file.name.rsplit_once('.').map_or("", |(_, extension)| extension),
        "size": file.size(), "mime_type": "application/octet-stream", "mini_preview": null,
        "remote_id": "", "archived": false,
    })
}

/// `getFile`: its uploader only, as nothing here is ever posted; one range at a time; never gzipped.
pub(super) fn download(exchange: &Exchange, id: &str) -> Answered {
    let session = exchange.session()?;
    let id = exchange.id(id, "file_id")?;
    let town = exchange.town();
    let file = town.files.get(&id).ok_or_else(|| {
        Answer::error(StatusCode::NOT_FOUND, "app.file_info.get.app_error", "Unable to get the file info.")
    })?;
    if file.user_id != session.user_id {
        return Err(Answer::forbidden());
    }
    let size = file.size();
    let range = single_range(credentials::text(&exchange.headers, "range"), size);
    let answer = match range {
        Some(range) => {
            let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            Answer::file(StatusCode::PARTIAL_CONTENT, file.slice(range)).with("Content-Range", &content_range)
        }
        None => Answer::file(StatusCode::OK, file.slice(0..size)),
    };
    let name: String =
        file.name.chars().filter(|letter| letter.is_ascii_alphanumeric() || ".-_".contains(*letter)).collect();
    let made = UNIX_EPOCH + Duration::from_millis(file.create_at.unsigned_abs());
    Ok(answer
        .with("Accept-Ranges", "bytes")
        .with("Cache-Control", "private, max-age=86400")
        .with("Content-Disposition", &format!("attachment;filename=\"{name}\"; filename*=UTF-8''{name}"))
        .with("Content-Security-Policy", "Frame-ancestors 'none'")
        .with("Content-Type", "application/octet-stream")
        .with("Last-Modified", &HttpDate::from(made.min(SystemTime::now())).to_string())
        .with("X-Frame-Options", "DENY")
        .with("X-Uncompressed-Content-Length", &size.to_string()))
}
