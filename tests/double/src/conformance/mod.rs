//! The double held to the truth: scenarios that any API server is asked, the double and a real kube-apiserver alike.
//!
//! A scenario is a list of HTTP requests with what must be in each answer. It says nothing of how the double works; it
//! uses kinds that every API server has, and one custom resource (`widgets`) that [`check`] defines for itself.
//!
//! Texts may name the namespace (`{ns}`), a name that is the scenario's own (`{id}`), and what an earlier answer was
//! kept as: `{a.rv}`, `{a.uid}`, `{a.generation}`, `{a.name}`.

use std::{collections::BTreeMap, fmt, time::Duration};

use http::{Request, header};
use kube::{Client, Error, client::Body};
use serde_json::{Value, json};

mod expect;
mod objects;
mod patches;
mod protocol;

pub use expect::mismatch;

/// How the body of a request is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// An object, or options.
    Json,
    /// A JSON Patch.
    JsonPatch,
    /// A JSON merge patch.
    MergePatch,
    /// A strategic merge patch.
    StrategicPatch,
    /// An applied configuration.
    Apply,
}

impl Content {
    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonPatch => "application/json-patch+json",
            Self::MergePatch => "application/merge-patch+json",
            Self::StrategicPatch => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// One request and what its answer must say.
#[derive(Debug, Clone)]
pub struct Step {
    method: &'static str,
    path: String,
    content: Content,
    body: String,
    code: u16,
    /// What must be in the answer; see [`mismatch`]. A watch answers with the list of its events.
    answer: Value,
    keep: Option<&'static str>,
}

impl Step {
    fn new(method: &'static str, path: &str, content: Content, body: String) -> Self {
        Self { method, path: path.to_owned(), content, body, code: 200, answer: json!({}), keep: None }
    }

    fn get(path: &str) -> Self {
        Self::new("GET", path, Content::Json, String::new())
    }

    fn post(path: &str, body: Value) -> Self {
        Self::new("POST", path, Content::Json, body.to_string()).answers(201, json!({}))
    }

    fn put(path: &str, body: Value) -> Self {
        Self::new("PUT", path, Content::Json, body.to_string())
    }

    /// A patch as text, since its spelling may matter.
    fn patch(path: &str, content: Content, body: &str) -> Self {
        Self::new("PATCH", path, content, body.to_owned())
    }

    fn delete(path: &str) -> Self {
        Self::new("DELETE", path, Content::Json, String::new())
    }

    fn delete_with(path: &str, options: Value) -> Self {
        Self::new("DELETE", path, Content::Json, options.to_string())
    }

    fn answers(mut self, code: u16, answer: Value) -> Self {
        self.code = code;
        self.answer = answer;
        self
    }

    /// Remembers the answer under a name, for later texts.
    fn keep(mut self, name: &'static str) -> Self {
        self.keep = Some(name);
        self
    }
}

/// A few requests that belong together.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What is being asked of the API server.
    pub name: &'static str,
    steps: Vec<Step>,
}

impl Scenario {
    fn new(name: &'static str, steps: impl IntoIterator<Item = Step>) -> Self {
        Self { name, steps: steps.into_iter().collect() }
    }
}

/// All scenarios.
pub fn scenarios() -> Vec<Scenario> {
    let mut all = objects::scenarios();
    all.extend(patches::scenarios());
    all.extend(protocol::scenarios());
    all
}

/// What came of asking every scenario.
#[derive(Debug, Default)]
pub struct Report {
    /// The names of the scenarios that were answered as expected.
    pub passed: Vec<&'static str>,
    /// The others: name and what was wrong.
    pub failed: Vec<(&'static str, String)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, why) in &self.failed {
            writeln!(f, "{name}: {why}")?;
        }
        write!(f, "{} scenarios held, {} did not", self.passed.len(), self.failed.len())
    }
}

/// Asks an API server every scenario, in a namespace that is made when it is missing. The objects stay: use a namespace
/// of its own, once. Needs the rights of a cluster administrator.
pub async fn check(client: Client, namespace: &str) -> Report {
    let mut report = Report::default();
    if let Err(why) = prepare(&client, namespace).await {
        report.failed.push(("preparing the namespace and the widgets", why));
        return report;
    }
    for (n, scenario) in scenarios().iter().enumerate() {
        let mut texts = Texts::default();
        texts.set("ns", namespace);
        texts.set("id", &format!("s{n}"));
        match run(&client, scenario, &mut texts).await {
            Ok(()) => report.passed.push(scenario.name),
            Err(why) => report.failed.push((scenario.name, why)),
        }
    }
    report
}

async fn run(client: &Client, scenario: &Scenario, texts: &mut Texts) -> Result<(), String> {
    for (n, step) in scenario.steps.iter().enumerate() {
        let step_is = format!("step {} ({} {})", n + 1, step.method, texts.fill(&step.path));
        let (code, answer) = ask(client, step, texts).await.map_err(|error| format!("{step_is}: {error}"))?;
        if code != step.code {
            return Err(format!("{step_is}: answered {code}, expected {}: {answer}", step.code));
        }
        if let Some(why) = mismatch(&texts.fill_all(&step.answer), &answer, "") {
            return Err(format!("{step_is}: {why}, in {answer}"));
        }
        if let Some(name) = step.keep {
            texts.keep(name, &answer);
        }
    }
    Ok(())
}

async fn ask(client: &Client, step: &Step, texts: &Texts) -> Result<(u16, Value), Error> {
    let path = texts.fill(&step.path);
    let request = Request::builder()
        .method(step.method)
        .uri(&path)
        .header(header::CONTENT_TYPE, step.content.media_type())
        .header(header::ACCEPT, "application/json")
        .body(Body::from(texts.fill(&step.body).into_bytes()))
        .expect("scenarios are valid requests");
    let response = client.send(request).await?;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect_bytes().await?;
    let text = String::from_utf8_lossy(&bytes);
    let answer = if path.contains("watch=true") && code == 200 {
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect()
    } else {
        serde_json::from_str(&text).unwrap_or_else(|_| json!(text))
    };
    Ok((code, answer))
}

/// The namespace, and a custom resource with a status subresource and no schema to speak of.
async fn prepare(client: &Client, namespace: &str) -> Result<(), String> {
    let mut texts = Texts::default();
    texts.set("ns", namespace);
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.conformance.learningloop.io"},
        "spec": {
            "group": "conformance.learningloop.io", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    });
    let made = [
        Step::post("/api/v1/namespaces", json!({"metadata": {"name": "{ns}"}})),
        Step::post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition),
    ];
    for step in made {
        let (code, answer) = ask(client, &step, &texts).await.map_err(|error| error.to_string())?;
        if !matches!(code, 201 | 409) {
            return Err(format!("{} answered {code}: {answer}", step.path));
        }
    }
    let ready = [
        Step::get(&format!("{}?limit=1", objects::WIDGETS)),
        // Namespaces get this one from a controller; without controllers nobody misses it.
        Step::get("/api/v1/namespaces/{ns}"),
    ];
    for step in ready {
        await_ok(client, &step, &texts).await?;
    }
    Ok(())
}

/// A new resource is served a moment after its definition was accepted, and by the watch cache a moment later still.
async fn await_ok(client: &Client, step: &Step, texts: &Texts) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..300 {
        match ask(client, step, texts).await {
            Ok((200, _)) => return Ok(()),
            Ok((code, answer)) => last = format!("{code}: {answer}"),
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("{} still answers {last}", texts.fill(&step.path)))
}

/// The words that scenario texts may name.
#[derive(Default)]
struct Texts {
    words: BTreeMap<String, String>,
}

impl Texts {
    fn set(&mut self, word: &str, value: &str) {
        self.words.insert(format!("{{{word}}}"), value.to_owned());
    }

    fn keep(&mut self, name: &str, answer: &Value) {
        for (word, pointer) in [
            ("rv", "/metadata/resourceVersion"),
            ("uid", "/metadata/uid"),
            ("generation", "/metadata/generation"),
            ("name", "/metadata/name"),
        ] {
            match answer.pointer(pointer) {
                Some(Value::String(text)) => self.set(&format!("{name}.{word}"), text),
                Some(other) => self.set(&format!("{name}.{word}"), &other.to_string()),
                None => {}
            }
        }
    }

    fn fill(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
    }

    fn fill_all(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(items) => items.iter().map(|item| self.fill_all(item)).collect(),
            Value::Object(members) => {
                Value::Object(members.iter().map(|(key, member)| (self.fill(key), self.fill_all(member))).collect())
            }
            other => other.clone(),
        }
    }
}
