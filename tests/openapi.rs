//! `docs/openapi.yaml` says what the parser does: names, aliases, words, ranges and defaults are held against the
//! parser's own table, and every reference leads somewhere.

use avatar_proxy::variant::transform::{PARAMETERS, Parameter, QueryError, Sizes, Transform, Values};
use serde_json::{Value, json};

const PICTURE: &str = "/paths/~1api~1v4~1users~1{user_id}~1image";

fn document() -> Value {
    serde_saphyr::from_str(include_str!("../docs/openapi.yaml")).expect("docs/openapi.yaml is YAML")
}

fn resolve<'a>(document: &'a Value, node: &'a Value) -> &'a Value {
    match node["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').expect("references stay inside the document");
            document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
        None => node,
    }
}

/// The parameter as the document has to write it, descriptions aside.
fn documented(parameter: &Parameter) -> Value {
    let mut schema = match parameter.values {
        Values::Whole { min, max, .. } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        Values::Decimal { min, max, .. } => json!({
            "type": "number",
            "minimum": f64::from(min) / 1000.0,
            "maximum": f64::from(max) / 1000.0,
        }),
        Values::Words(words) => {
            let words: Vec<_> = words.iter().map(|(word, _)| word).collect();
            json!({ "type": "string", "enum": words })
        }
        Values::Colour { .. } => json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{6}$" }),
    };
    if let Some(default) = parameter.default {
        schema["default"] = match parameter.values {
            Values::Whole { .. } | Values::Decimal { .. } => {
                json!(default.parse::<f64>().expect("a number"))
            }
            Values::Words(_) | Values::Colour { .. } => json!(default),
        };
    }
    let mut documented = json!({ "name": parameter.name, "in": "query", "schema": schema });
    if !parameter.aliases.is_empty() {
        documented["x-aliases"] = json!(parameter.aliases);
    }
    documented
}

/// `4` and `4.0` are one number to a reader of YAML.
fn numbers_as_floats(value: &mut Value) {
    match value {
        Value::Number(number) => *value = json!(number.as_f64()),
        Value::Array(items) => items.iter_mut().for_each(numbers_as_floats),
        Value::Object(fields) => fields.values_mut().for_each(numbers_as_floats),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[test]
fn the_query_parameters_are_those_of_the_parser() {
    let document = document();
    for method in ["get", "head"] {
        let listed = &document.pointer(PICTURE).expect("the route")[method]["parameters"];
        let mut listed: Vec<Value> =
            listed.as_array().expect("a list").iter().map(|p| resolve(&document, p).clone()).collect();
        listed.retain(|p| p["in"] == "query" && p["name"] != "_" && p["name"] != "lastPictureUpdate");
        let mut expected: Vec<Value> = PARAMETERS.iter().map(documented).collect();
        for parameter in &mut listed {
            let fields = parameter.as_object_mut().expect("a parameter is a map");
            let description = fields.remove("description").expect("every parameter is described");
            assert!(!description.as_str().expect("text").is_empty());
        }
        listed.iter_mut().chain(&mut expected).for_each(numbers_as_floats);
        assert_eq!(listed, expected, "{method}");
    }
}

#[test]
fn every_answer_is_listed() {
    let document = document();
    for (method, expected) in [
        ("get", &["200", "304", "400", "401", "403", "404", "429", "502", "503", "504"][..]),
        ("head", &["200", "304", "400", "401", "403", "404", "429", "502", "503", "504"]),
        ("post", &["200", "400", "401", "403", "408", "413", "501", "502", "503", "504"]),
        ("delete", &["200", "400", "401", "403", "404", "501", "502", "503", "504"]),
    ] {
        let responses = document.pointer(PICTURE).expect("the route")[method]["responses"].as_object().expect("a map");
        let statuses: Vec<_> = responses.keys().map(String::as_str).collect();
        assert_eq!(statuses, expected, "{method}");
        for (status, response) in responses {
            assert!(response["description"].is_string(), "{method} {status}");
        }
    }
}

#[test]
fn every_error_of_the_query_is_documented() {
    let document = document();
    let ids = document.pointer("/components/schemas/AppError/properties/id/description").expect("the ids");
    let too_many = vec!["a=1"; 101].join("&");
    let too_long = "a".repeat(10_000);
    for query in ["size=abc", "size=1&size=99", &too_many, &too_long] {
        let error: QueryError = Transform::parse(query, &Sizes::default()).expect_err("not understood");
        assert!(ids.as_str().expect("text").contains(&format!("`{}`", error.id())), "{}", error.id());
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(document: &Value, node: &Value) {
        resolve(document, node);
        match node {
            Value::Array(items) => items.iter().for_each(|item| walk(document, item)),
            Value::Object(fields) => fields.values().for_each(|field| walk(document, field)),
            _ => {}
        }
    }
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    walk(&document, &document);
}
