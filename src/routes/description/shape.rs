//! What a schema admits, less the ways in which that can be written.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Description, Drifts, entries, strings};

/// What a schema says of the shape of a value.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    /// JSON types; `None` for any.
    pub(super) types: Option<BTreeSet<String>>,
    /// The only strings that it can be, if they are few.
    words: Option<BTreeSet<String>>,
    pub(super) fields: BTreeMap<String, Field>,
    /// Of the values under names that are no fields.
    others: Option<Box<Shape>>,
    /// There are no other names than those of the fields.
    pub(super) is_closed: bool,
    items: Option<Box<Shape>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Field {
    pub(super) shape: Shape,
    pub(super) is_required: bool,
}

impl Shape {
    /// The shape of what a schema admits; `$ref`s lead into the description.
    pub(super) fn of(description: &Description, schema: &Value) -> Self {
        let of = |schema: &Value| Shape::of(description, schema);
        let mut shape = Shape::of_keywords(description, schema);
        if let Some(reference) = schema["$ref"].as_str() {
            shape = shape.and(of(description.at(reference.trim_start_matches('#'))));
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            shape = shape.and(of(part));
        }
        for alternatives in ["oneOf", "anyOf"] {
            let alternatives = schema[alternatives].as_array().into_iter().flatten();
            if let Some(either) = alternatives.map(of).reduce(Shape::or) {
                shape = shape.and(either);
            }
        }
        shape
    }

    /// What the keywords say that do not lead to another schema of the same value.
    fn of_keywords(description: &Description, schema: &Value) -> Self {
        let of = |schema: &Value| Some(Box::new(Shape::of(description, schema)));
        let mut shape = Shape::default();
        let values = schema.get("const").into_iter();
        let values: Vec<&Value> =
            values.chain(schema["enum"].as_array().into_iter().flatten()).collect();
        if !values.is_empty() {
            shape.types = Some(values.iter().map(|value| type_of(value).to_owned()).collect());
            let words = values.iter().filter_map(|value| value.as_str());
            shape.words = Some(words.map(str::to_owned).collect());
        }
        let types = schema["type"].as_str().into_iter().chain(strings(&schema["type"]));
        let types: BTreeSet<String> = types.map(str::to_owned).collect();
        if !types.is_empty() {
            shape.types = Some(types);
        }
        for (name, schema) in entries(&schema["properties"]) {
            let field = Field { shape: Shape::of(description, schema), is_required: false };
            shape.fields.insert(name, field);
        }
        for name in strings(&schema["required"]) {
            shape.fields.entry(name.to_owned()).or_default().is_required = true;
        }
        for others in ["additionalProperties", "unevaluatedProperties"] {
            match schema.get(others) {
                Some(Value::Bool(others)) => shape.is_closed |= !others,
                Some(others) => shape.others = of(others),
                None => {}
            }
        }
        shape.items = schema.get("items").and_then(of);
        shape
    }

    /// What is as both say.
    fn and(self, other: Shape) -> Shape {
        let mut fields = self.fields;
        for (name, field) in other.fields {
            let one = fields.remove(&name).unwrap_or_default();
            let is_required = one.is_required || field.is_required;
            fields.insert(name, Field { shape: one.shape.and(field.shape), is_required });
        }
        let both = |one: BTreeSet<String>, other: BTreeSet<String>| &one & &other;
        Shape {
            types: either(self.types, other.types, both),
            words: either(self.words, other.words, both),
            fields,
            others: either(self.others, other.others, |one, other| Box::new(one.and(*other))),
            is_closed: self.is_closed || other.is_closed,
            items: either(self.items, other.items, |one, other| Box::new(one.and(*other))),
        }
    }

    /// What is as one of them says.
    fn or(self, mut other: Shape) -> Shape {
        let can_be_text =
            |shape: &Shape| shape.types.as_ref().is_none_or(|types| types.contains("string"));
        let words = match (self.words.clone(), other.words.clone()) {
            (Some(one), Some(other)) => Some(&one | &other),
            (Some(words), None) if !can_be_text(&other) => Some(words),
            (None, Some(words)) if !can_be_text(&self) => Some(words),
            _ => None,
        };
        let mut fields = BTreeMap::new();
        for (name, field) in self.fields {
            let field = match other.fields.remove(&name) {
                Some(same) => Field {
                    shape: field.shape.or(same.shape),
                    is_required: field.is_required && same.is_required,
                },
                None => Field { is_required: false, ..field },
            };
            fields.insert(name, field);
        }
        let rest = other.fields.into_iter();
        fields.extend(rest.map(|(name, field)| (name, Field { is_required: false, ..field })));
        Shape {
            types: self.types.zip(other.types).map(|(one, other)| &one | &other),
            words,
            fields,
            others: either(self.others, other.others, |one, other| Box::new(one.or(*other))),
            is_closed: self.is_closed && other.is_closed,
            items: either(self.items, other.items, |one, other| Box::new(one.or(*other))),
        }
    }

    /// The same for what is written: a field that may be absent is absent instead
    /// of null.
    pub(super) fn with_absent_for_null(mut self) -> Self {
        for field in self.fields.values_mut() {
            field.shape = std::mem::take(&mut field.shape).with_absent_for_null();
            if let Some(types) = field.shape.types.as_mut().filter(|_| !field.is_required) {
                types.remove("null");
            }
        }
        let inner = |shape: Box<Shape>| Box::new(shape.with_absent_for_null());
        self.items = self.items.map(inner);
        self.others = self.others.map(inner);
        self
    }

    /// Holds what is said against what the code has.
    pub(super) fn compare(&self, code: &Shape, place: &str, drifts: &mut Drifts) {
        let types = |shape: &Shape| match &shape.types {
            Some(types) => types.iter().cloned().collect::<Vec<_>>().join(" or "),
            None => "anything".to_owned(),
        };
        drifts.same(format!("type of {place}"), types(self), types(code));
        // The code may know a few words as no more than strings.
        if let Some(code) = &code.words {
            drifts.names(format!("words of {place}"), self.words.iter().flatten(), code);
        }
        drifts.names(format!("fields of {place}"), self.fields.keys(), code.fields.keys());
        for (name, said) in &self.fields {
            let Some(code) = code.fields.get(name) else { continue };
            let place = format!("{place}.{name}");
            drifts.same(format!("required {place}"), said.is_required, code.is_required);
            said.shape.compare(&code.shape, &place, drifts);
        }
        for (said, code, place) in [
            (&self.items, &code.items, format!("{place}[]")),
            (&self.others, &code.others, format!("{place}.*")),
        ] {
            drifts.same(format!("schema of {place}"), said.is_some(), code.is_some());
            if let Some((said, code)) = said.as_ref().zip(code.as_ref()) {
                said.compare(code, &place, drifts);
            }
        }
    }
}

/// What both say, or the one that says something.
fn either<T>(one: Option<T>, other: Option<T>, both: impl FnOnce(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(both(one, other)),
        (one, other) => one.or(other),
    }
}

/// The JSON type of a value.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
