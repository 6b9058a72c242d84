//! The fields of a request that passes through, as one text in the order in which they came. A map would hash each name and
//! share each value by a counter of its own, for a handful of fields that are looked at once and written out again.

use std::fmt;
use std::ops::Range;

/// What stands between a name and its value, and behind that.
const COLON: &[u8] = b": ";
const END: &[u8] = b"\r\n";

/// Fields with names in lower case. Each stands in the text as on the wire (RFC 9112 section 5), and those that were removed
/// stand there still, and are not written.
#[derive(Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    list: Vec<Field>,
}

/// Where a field stands.
#[derive(Clone, Copy)]
struct Field {
    begin: u32,
    name: u32,
    value: u32,
}

fn small(length: usize) -> u32 {
    u32::try_from(length).expect("a head is much shorter")
}

fn large(length: u32) -> usize {
    usize::try_from(length).expect("it was one")
}

impl Field {
    fn name(self) -> Range<usize> {
        let begin = large(self.begin);
        begin..begin + large(self.name)
    }

    fn value(self) -> Range<usize> {
        let begin = large(self.begin) + large(self.name) + COLON.len();
        begin..begin + large(self.value)
    }

    fn all(self) -> Range<usize> {
        large(self.begin)..self.value().end + END.len()
    }
}

impl Fields {
    /// None yet, with room for so many bytes of names and values in so many fields.
    #[must_use]
    pub fn with_capacity(bytes: usize, fields: usize) -> Self {
        let text = Vec::with_capacity(bytes + fields * (COLON.len() + END.len()));
        Self { text, list: Vec::with_capacity(fields) }
    }

    /// Adds a field behind the others. `name` is a token in lower case, and `value` could stand in a field.
    pub fn append(&mut self, name: &str, value: &[u8]) {
        debug_assert!(
            !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b':'),
            "{name}"
        );
        debug_assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{name}");
        let field = Field { begin: small(self.text.len()), name: small(name.len()), value: small(value.len()) };
        self.text.reserve(name.len() + COLON.len() + value.len() + END.len());
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(COLON);
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(END);
        self.list.push(field);
    }

    /// Puts one field in the place of all of that name.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }

    /// Removes all fields of that name.
    pub fn remove(&mut self, name: &str) {
        if self.contains(name) {
            self.retain(|each| each != name.as_bytes());
        }
    }

    /// Keeps the fields of these names alone.
    pub fn retain(&mut self, keeps: impl Fn(&[u8]) -> bool) {
        let Self { text, list } = self;
        list.retain(|field| keeps(&text[field.name()]));
    }

    /// The value of the first field of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let field = self.list.iter().find(|field| self.is_named(**field, name))?;
        Some(&self.text[field.value()])
    }

    /// Most names differ in length, which is known without a look at the text.
    fn is_named(&self, field: Field, name: &str) -> bool {
        large(field.name) == name.len() && self.text[field.name()] == *name.as_bytes()
    }

    /// Whether there is a field of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The values of all fields of that name, in their order.
    pub fn all<'a, 'name>(&'a self, name: &'name str) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a, 'name> {
        self.list.iter().filter(move |field| self.is_named(**field, name)).map(|field| &self.text[field.value()])
    }

    /// Names and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.list.iter().map(|field| {
            let name = std::str::from_utf8(&self.text[field.name()]).expect("it was text when it was added");
            (name, &self.text[field.value()])
        })
    }

    /// As many bytes as [`Fields::write`] writes, at most.
    pub(super) fn length(&self) -> usize {
        self.text.len()
    }

    /// Writes them as they stand on the wire; what stands together in the text, in one piece.
    pub(super) fn write(&self, into: &mut Vec<u8>) {
        let (mut start, mut end) = (0, 0);
        for field in &self.list {
            let all = field.all();
            if all.start != end {
                into.extend_from_slice(&self.text[start..end]);
                start = all.start;
            }
            end = all.end;
        }
        into.extend_from_slice(&self.text[start..end]);
    }
}

/// Names alone: values may be credentials.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a [u8])> for Fields {
    fn from_iter<Iter: IntoIterator<Item = (&'a str, &'a [u8])>>(fields: Iter) -> Self {
        let mut all = Self::default();
        for (name, value) in fields {
            all.append(name, value);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(fields: &Fields) -> Vec<u8> {
        let mut written = Vec::new();
        fields.write(&mut written);
        written
    }

    fn told(fields: &Fields) -> Vec<(&str, &[u8])> {
        fields.iter().collect()
    }

    #[test]
    fn fields_are_found_replaced_and_removed() {
        let mut fields = Fields::from_iter([("host", &b"a"[..]), ("cookie", b"1"), ("x-empty", b""), ("cookie", b"2")]);
        assert_eq!(fields.get("cookie"), Some(&b"1"[..]));
        assert_eq!(fields.all("cookie").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!((fields.get("x-empty"), fields.get("cooki"), fields.get("cookies")), (Some(&b""[..]), None, None));
        fields.set("host", b"b");
        fields.remove("absent");
        assert_eq!(told(&fields), [("cookie", &b"1"[..]), ("x-empty", b""), ("cookie", b"2"), ("host", b"b")]);
        fields.remove("cookie");
        assert!(!fields.contains("cookie"));
        assert_eq!(written(&fields), b"x-empty: \r\nhost: b\r\n");
    }

    #[test]
    fn no_value_is_shown() {
        let fields = Fields::from_iter([("authorization", &b"Bearer secret"[..])]);
        assert_eq!(format!("{fields:?}"), r#"["authorization"]"#);
    }

    proptest! {
        /// As a list of pairs would have it.
        #[test]
        fn they_are_a_list_of_pairs(
            steps in prop::collection::vec((0..3, "[a-d]{1,2}", prop::collection::vec(0x20_u8..0x7f, 0..5)), 0..60),
        ) {
            let (mut fields, mut pairs) = (Fields::default(), Vec::<(&str, &[u8])>::new());
            for (step, name, value) in &steps {
                match step {
                    0 => fields.append(name, value),
                    1 => fields.set(name, value),
                    _ => fields.remove(name),
                }
                if *step > 0 {
                    pairs.retain(|(each, _)| each != name);
                }
                if *step < 2 {
                    pairs.push((name, value));
                }
                prop_assert_eq!(told(&fields), pairs.clone());
                let lines = pairs.iter().flat_map(|(name, value)| [name.as_bytes(), b": ", *value, b"\r\n"]);
                prop_assert_eq!(written(&fields), lines.collect::<Vec<_>>().concat());
            }
        }
    }
}
