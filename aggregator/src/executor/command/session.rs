//! What a command asks the cluster: every path goes through the grammar and the rules that paths of the cloud
//! go through, whoever wrote it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::Mutex;

use super::{
    Output,
    discovery::{self, Resource},
    jsonpath::Template,
    room::{Room, written},
    work::{Stop, Waits, Work},
};
use crate::{
    executor::{
        cluster::{Answer, Cluster, Failure, READ_BYTES, apart},
        hidden::MARK,
        json::{Column, Holds, Page},
        path::Readable,
        percent::encode,
        reason::Refused,
        rules::Rules,
        secret,
    },
    link::Nodes,
};

/// How long what kinds there are is taken for known.
const KINDS_HOLD: Duration = Duration::from_secs(60);
const NO_ROOM: &str = "the objects of one command are larger than 8 MiB together: ask for fewer at once";
const NO_ROOM_NOW: &str = "other commands hold so many objects that there is no room for this one: ask again later, or for fewer at once";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// The kinds of the cluster, as they were last seen.
pub(crate) type Kinds = Mutex<Option<(Instant, Arc<Vec<Resource>>)>>;

/// Why a command comes to its end.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It asked for what is not given.
    Refused(Refused),
    /// The API server did not give it.
    Failed(Failure),
    /// In kubectl's words.
    Said(String),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Trouble {
    pub(super) fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.status == 404)
    }

    /// As kubectl shows it within an object.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Refused(refused) => refused.to_string(),
            Self::Failed(Failure { message, .. }) | Self::Said(message) => message.clone(),
        }
    }

    /// As kubectl writes it to its errors.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Refused(refused) => refused.to_string(),
            Self::Failed(Failure { message, reason: Some(reason), .. }) if !reason.is_empty() => {
                format!("Error from server ({reason}): {message}")
            }
            Self::Failed(Failure { message, reason: Some(_), .. }) => format!("Error from server: {message}"),
            Self::Failed(Failure { message, .. }) => format!("error: {message}"),
            Self::Said(text) => format!("error: {text}"),
        }
    }
}

/// A table as the API server set it.
#[derive(Default)]
pub(super) struct Grid {
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
    /// There was no room for more.
    pub is_cut: bool,
}

pub(super) struct Row {
    /// Those that are not wanted are empty.
    pub cells: Vec<String>,
    pub namespace: String,
    pub labels: Value,
    /// What of the object it is sorted by, in its place.
    pub object: Value,
}

/// What of each row is shown or sorted by: the rest of it would take the room of others.
pub(super) struct Wanted<'a> {
    pub wide: bool,
    pub labels: bool,
    pub sort: Option<&'a Template>,
}

/// Objects of a list.
#[derive(Default)]
pub(super) struct Objects {
    pub items: Vec<Value>,
    pub is_cut: bool,
}

impl Objects {
    /// The items; `output` says it if there are more.
    pub(super) fn told(self, what: &str, output: &mut Output) -> Vec<Value> {
        if self.is_cut {
            output.warn(&format!("{what} was cut after {} objects, for want of room", self.items.len()));
        }
        self.items
    }
}

/// A log, or what of it there was room for.
pub(super) struct Log {
    pub text: String,
    pub is_cut: bool,
}

/// One command's way to the cluster.
pub(crate) struct Session<'a> {
    pub cluster: &'a Cluster,
    pub rules: Rules,
    pub kinds: &'a Kinds,
    pub nodes: &'a Nodes,
    pub room: Arc<Room>,
    /// Until then there must be an answer.
    pub deadline: tokio::time::Instant,
}

/// A path with a query, encoded once.
pub(super) fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut uri = path.to_owned();
    for (place, (key, value)) in pairs.iter().filter(|(_, value)| !value.is_empty()).enumerate() {
        uri.push(if place == 0 { '?' } else { '&' });
        uri.push_str(key);
        uri.push('=');
        encode(value, &mut uri);
    }
    uri
}

/// The same with one name behind it.
pub(super) fn named(path: &str, name: &str) -> String {
    let mut path = format!("{path}/");
    encode(name, &mut path);
    path
}

impl Session<'_> {
    /// For one command.
    pub(crate) fn room() -> Arc<Room> {
        Arc::new(Room::new())
    }

    /// Does what takes time on a thread of its own, as the runtime has other things to do. It is told to stop as soon
    /// as nobody waits for it: at the deadline, or when the owner switches the executor off.
    ///
    /// # Errors
    /// It failed in a way that nobody foresaw.
    pub(super) async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Work) -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        let waits = Waits(Stop::default());
        let (stop, room) = (waits.0.clone(), Arc::clone(&self.room));
        let done = self.room.threads.spawn_blocking(move || {
            let done = work(&Work::until(stop));
            // What it holds is held until here, whoever waits.
            drop(room);
            done
        });
        done.await.map_err(|_| Trouble::said("this command failed in a way that nobody foresaw"))
    }

    /// Waits until what runs apart has ended.
    pub(super) async fn ended(&self) {
        self.room.threads.close();
        self.room.threads.wait().await;
    }

    /// The object, if there is room for it.
    fn held(&self, object: Value) -> Result<Value, Failure> {
        if self.room.holds(&object) { Ok(object) } else { Err(Failure::own(503, NO_ROOM_NOW)) }
    }

    fn readable(&self, uri: &str) -> Result<Readable, Refused> {
        Readable::parse(uri)?.under(self.rules, &self.cluster.excluded)
    }

    /// One object.
    pub(crate) async fn object(&self, uri: &str) -> Result<Value, Trouble> {
        let readable = self.readable(uri)?;
        let answer = self.cluster.get(&readable.uri(), "application/json").await?;
        self.taken(&answer, readable.holds)
    }

    /// An object as the cloud may see it, if there is room for it.
    pub(super) fn taken(&self, answer: &Answer, holds: Holds) -> Result<Value, Trouble> {
        if answer.is_cut {
            return Err(Failure::own(413, "the object is larger than 8 MiB").into());
        }
        let object = self.cluster.cleaned_text(&answer.text, holds)?;
        if !self.room.takes(written(&object)) {
            return Err(Failure::own(413, NO_ROOM).into());
        }
        Ok(self.held(object)?)
    }

    /// The objects of a list, with their kind, as far as there is room.
    pub(super) async fn list(&self, uri: &str) -> Result<Objects, Trouble> {
        let readable = self.readable(uri)?;
        let mut objects = Objects::default();
        self.cluster
            .pages(&readable, "application/json", |page| {
                let kind = page.kind.strip_suffix("List").unwrap_or(&page.kind);
                for item in &page.items {
                    let mut item = self.cluster.cleaned(item, readable.holds)?;
                    if !(self.room.takes(written(&item)) && self.room.holds(&item)) {
                        objects.is_cut = true;
                        return Ok(false);
                    }
                    if let Some(fields) = item.as_object_mut() {
                        fields.entry("apiVersion").or_insert_with(|| page.api_version.clone().into());
                        fields.entry("kind").or_insert_with(|| kind.into());
                    }
                    objects.items.push(item);
                }
                Ok(true)
            })
            .await?;
        Ok(objects)
    }

    /// The table of a list or of one object.
    pub(super) async fn table(&self, uri: &str, is_list: bool, wanted: &Wanted<'_>) -> Result<Grid, Trouble> {
        let readable = self.readable(uri)?;
        let mut grid = Grid::default();
        let mut take = |page: &Page<'_>| -> Result<bool, Failure> {
            let is_table = page.kind == "Table";
            if grid.columns.is_empty() {
                grid.columns = if is_table { page.columns.clone() } else { plain_columns() };
            }
            for item in &page.items {
                let columns = is_table.then_some(&grid.columns[..]);
                let row = self.row(item.get(), columns, readable.holds, wanted)?;
                if !self.fits(&row) {
                    grid.is_cut = true;
                    return Ok(false);
                }
                grid.rows.push(row);
            }
            Ok(true)
        };
        if is_list {
            self.cluster.pages(&readable, TABLE, take).await?;
            return Ok(grid);
        }
        let answer = self.cluster.get(&readable.uri(), TABLE).await?;
        if answer.is_cut {
            return Err(Failure::own(413, "the object is larger than 8 MiB").into());
        }
        match serde_json::from_str::<Page<'_>>(&answer.text) {
            Ok(page) => {
                take(&page)?;
            }
            Err(_) => {
                let row = self.row(&answer.text, None, readable.holds, wanted)?;
                if !self.fits(&row) {
                    return Err(Failure::own(413, NO_ROOM).into());
                }
                grid.columns = plain_columns();
                grid.rows.push(row);
            }
        }
        Ok(grid)
    }

    fn fits(&self, row: &Row) -> bool {
        let cells = row.cells.iter().map(String::len).sum::<usize>();
        let bytes = cells + row.namespace.len() + written(&row.labels) + written(&row.object);
        self.room.takes(bytes)
            && self.room.holds(&row.object)
            && (row.labels.is_null() || self.room.holds(&row.labels))
    }

    fn row(
        &self,
        written: &str,
        columns: Option<&[Column]>,
        holds: Holds,
        wanted: &Wanted<'_>,
    ) -> Result<Row, Failure> {
        let (cells, mut object) = match columns {
            None => {
                let object = self.cluster.cleaned_text(written, holds)?;
                let age = super::age(object["metadata"]["creationTimestamp"].as_str());
                (vec![super::text(&object, &["metadata", "name"]).to_owned(), age], object)
            }
            Some(columns) => {
                let row: Value = serde_json::from_str(written).map_err(|error| {
                    Failure::own(502, format!("the API server's table can't be read: {error}"))
                })?;
                let cells = row["cells"].as_array().map_or(&[][..], Vec::as_slice);
                let cells = (0..).zip(cells).map(|(place, cell)| match columns.get(place) {
                    Some(column) if column.priority > 0 && !wanted.wide => String::new(),
                    column => self.cell(column, cell),
                });
                (cells.collect(), self.cluster.cleaned_text(&row["object"].to_string(), holds)?)
            }
        };
        let metadata = &object["metadata"];
        let namespace = super::text(metadata, &["namespace"]).to_owned();
        let labels = if wanted.labels { metadata["labels"].clone() } else { Value::Null };
        match wanted.sort {
            Some(path) => path.prune(&mut object),
            None => object = Value::Null,
        }
        Ok(Row { cells, namespace, labels, object })
    }

    fn cell(&self, column: Option<&Column>, cell: &Value) -> String {
        // A column that is called Secret, as certificates have one, shows the name of one.
        let is_secret = column.is_some_and(|column| {
            !column.name.eq_ignore_ascii_case("secret") && secret::is_name(&column.name)
        });
        let text = match cell {
            Value::Null => String::new(),
            Value::String(text) if is_secret && !text.is_empty() => MARK.to_owned(),
            Value::String(text) => text.clone(),
            other => super::go_text(other),
        };
        let text = self.cluster.cleaned_lines(text);
        match text.find(['\n', '\r', '\u{c}']) {
            Some(end) => format!("{}...", &text[..end]),
            None => text,
        }
    }

    /// Text, such as a log.
    pub(super) async fn log(&self, uri: &str) -> Result<Log, Trouble> {
        let readable = self.readable(uri)?;
        let answer = self.cluster.get(&readable.uri(), "*/*").await?;
        let is_cut = answer.is_cut || answer.text.len() >= READ_BYTES;
        Ok(Log { text: self.cluster.cleaned_log(answer, &readable), is_cut })
    }

    /// What the API server says of itself.
    pub(super) async fn schema(&self, uri: &str, accept: &str) -> Result<String, Trouble> {
        let readable = self.readable(uri)?;
        let answer = self.cluster.get(&readable.uri(), accept).await?;
        if answer.is_cut {
            return Err(Failure::own(413, "the API server's description is larger than 8 MiB").into());
        }
        Ok(answer.text)
    }

    /// The kinds that the cluster has.
    pub(crate) async fn resources(&self) -> Result<Arc<Vec<Resource>>, Trouble> {
        let mut kinds = self.kinds.lock().await;
        if let Some((when, known)) = &*kinds
            && when.elapsed() < KINDS_HOLD
        {
            return Ok(Arc::clone(known));
        }
        let (core, groups) =
            tokio::try_join!(self.schema("/api", AGGREGATED), self.schema("/apis", AGGREGATED))?;
        let kinds_of = |text: &str| apart(text.len(), || discovery::aggregated(text));
        let found = match (kinds_of(&core), kinds_of(&groups)) {
            (Some(core), Some(groups)) => [core, groups].concat(),
            _ => self.older_resources(&groups).await?,
        };
        let found = Arc::new(found);
        *kinds = Some((Instant::now(), Arc::clone(&found)));
        Ok(found)
    }

    /// Of an API server before 1.27: a question for each version of each group.
    async fn older_resources(&self, groups: &str) -> Result<Vec<Resource>, Trouble> {
        let mut found = discovery::of_version(&self.schema("/api/v1", "application/json").await?, "", "v1");
        for (group, version) in discovery::group_versions(groups) {
            // A group whose server is away has no kinds.
            if let Ok(text) = self.schema(&format!("/apis/{group}/{version}"), "application/json").await {
                found.extend(discovery::of_version(&text, &group, &version));
            }
        }
        Ok(found)
    }

    /// The kind that a word names.
    pub(super) async fn resource(&self, word: &str) -> Result<Resource, Trouble> {
        let resources = self.resources().await?;
        match discovery::find(&resources, word) {
            Some(resource) => Ok(resource.clone()),
            None => Err(Trouble::said(format!("the server doesn't have a resource type \"{word}\""))),
        }
    }
}

fn plain_columns() -> Vec<Column> {
    let column =
        |name: &str, format: &str| Column { name: name.to_owned(), format: format.to_owned(), priority: 0 };
    vec![column("Name", "name"), column("Age", "")]
}
