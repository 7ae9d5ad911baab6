//! `kubectl get`.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::{
    Output, add_go_text,
    discovery::Resource,
    is_full, json_text,
    jsonpath::Template,
    kubectl::{Format, Kubectl},
    quantity,
    session::{Grid, Row, Session, Trouble, Wanted, named, with_query},
    table,
    work::Work,
    yaml,
};

/// Objects that were asked for: all of a kind, or one.
pub(super) struct Target {
    pub resource: Resource,
    pub name: Option<String>,
}

/// What the words name.
pub(super) async fn targets(session: &Session<'_>, words: &[String]) -> Result<Vec<Target>, Trouble> {
    let mut targets = Vec::new();
    if words.iter().any(|word| word.contains('/')) {
        for word in words {
            let Some((kind, name)) = word.split_once('/') else {
                return Err(Trouble::said(
                    "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'",
                ));
            };
            let resource = session.resource(kind).await?;
            targets.push(Target { resource, name: Some(name.to_owned()) });
        }
        return Ok(targets);
    }
    let Some((kinds, names)) = words.split_first() else { return Ok(targets) };
    let mut resources: Vec<Resource> = Vec::new();
    for kind in kinds.split(',').filter(|kind| !kind.is_empty()) {
        let known = session.resources().await?;
        let of_category: Vec<Resource> = known
            .iter()
            .filter(|resource| {
                resource.categories.iter().any(|category| category == kind) && resource.can("list")
            })
            .cloned()
            .collect();
        match of_category.is_empty() {
            true => add(&mut resources, session.resource(kind).await?),
            false => of_category.into_iter().for_each(|resource| add(&mut resources, resource)),
        }
    }
    if names.is_empty() {
        return Ok(resources.into_iter().map(|resource| Target { resource, name: None }).collect());
    }
    for resource in resources {
        targets
            .extend(names.iter().map(|name| Target { resource: resource.clone(), name: Some(name.clone()) }));
    }
    Ok(targets)
}

/// Once, whatever names it has. Of a kind in several versions, the first is the preferred one.
fn add(resources: &mut Vec<Resource>, resource: Resource) {
    if !resources.iter().any(|known| known.group == resource.group && known.name == resource.name) {
        resources.push(resource);
    }
}

/// Where the objects of a target are.
pub(super) fn path(target: &Target, command: &Kubectl) -> String {
    let all = command.arguments.has("all-namespaces");
    let namespace = (!all || target.name.is_some()).then(|| command.namespace());
    let path = target.resource.path(namespace);
    match &target.name {
        None => path,
        Some(name) => {
            let path = named(&path, name);
            match command.arguments.value("subresource") {
                Some(subresource) => format!("{path}/{subresource}"),
                None => path,
            }
        }
    }
}

fn selectors(target: &Target, command: &Kubectl, include: &str) -> Vec<(&'static str, String)> {
    let value = |name: &str| command.arguments.value(name).unwrap_or_default().to_owned();
    let mut pairs = vec![("includeObject", include.to_owned())];
    if target.name.is_none() {
        pairs.push(("labelSelector", value("selector")));
        pairs.push(("fieldSelector", value("field-selector")));
    }
    pairs
}

fn uri(target: &Target, command: &Kubectl, include: &str) -> String {
    let pairs = selectors(target, command, include);
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (*key, value.as_str())).collect();
    with_query(&path(target, command), &pairs)
}

pub(super) async fn run(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let targets = targets(session, &command.words).await?;
    if targets.iter().any(|target| target.name.is_some()) && command.arguments.has("all-namespaces") {
        return Err(Trouble::said("a resource cannot be retrieved by name across all namespaces"));
    }
    if targets.iter().any(|target| target.name.is_some()) && command.arguments.value("selector").is_some() {
        return Err(Trouble::said("name cannot be provided when a selector is specified"));
    }
    match &command.format {
        Format::Table { wide } => human(session, command, &targets, *wide).await,
        _ => objects(session, command, &targets).await,
    }
}

/// As tables that the API server set.
async fn human(
    session: &Session<'_>,
    command: &Kubectl,
    targets: &[Target],
    wide: bool,
) -> Result<Output, Trouble> {
    let arguments = &command.arguments;
    let labels = arguments.has("show-labels") || arguments.value("label-columns").is_some();
    let wanted = Wanted { wide, labels, sort: command.sort.as_ref() };
    let include = match (wanted.sort, labels || arguments.has("all-namespaces")) {
        (Some(_), _) => "Object",
        (None, true) => "Metadata",
        (None, false) => "None",
    };
    let mut output = Output::default();
    let mut groups: Vec<(Resource, Grid)> = Vec::new();
    for target in targets {
        match session.table(&uri(target, command, include), target.name.is_none(), &wanted).await {
            Ok(grid) => match groups.last_mut() {
                Some((resource, group)) if *resource == target.resource => group.rows.extend(grid.rows),
                _ => groups.push((target.resource.clone(), grid)),
            },
            Err(trouble) if trouble.is_not_found() && command.arguments.has("ignore-not-found") => {}
            Err(refused @ Trouble::Refused(_)) => return Err(refused),
            Err(trouble) => output.fails(&trouble),
        }
    }
    let with_kind = command.arguments.has("show-kind") || groups.len() > 1;
    groups.retain(|(_, grid)| !grid.rows.is_empty());
    for (resource, grid) in groups.iter().filter(|(_, grid)| grid.is_cut) {
        output.warn(&format!(
            "{} was cut after {} objects, for want of room",
            resource.name,
            grid.rows.len()
        ));
    }
    let asked = command.clone();
    let tables = session.apart(move |work| {
        let headers = !asked.arguments.has("no-headers");
        let mut texts = Vec::new();
        for (resource, mut grid) in groups {
            if let Some(path) = &asked.sort {
                sort(&mut grid.rows, path, |row| &row.object, work)?;
            }
            texts.push(text(&asked, &resource, &grid, wide, with_kind, headers));
        }
        Ok(texts.join(if headers { "\n" } else { "" }))
    });
    output.stdout = tables.await?.map_err(Trouble::Said)?;
    if output.stdout.is_empty() && output.code == 0 && !command.arguments.has("ignore-not-found") {
        let namespaced = targets.iter().all(|target| target.resource.namespaced);
        output.stderr.push_str(&match namespaced && !command.arguments.has("all-namespaces") {
            true => format!("No resources found in {} namespace.\n", command.namespace()),
            false => "No resources found\n".to_owned(),
        });
    }
    Ok(output)
}

fn text(
    command: &Kubectl,
    resource: &Resource,
    grid: &Grid,
    wide: bool,
    with_kind: bool,
    headers: bool,
) -> String {
    let shown: Vec<usize> =
        (0..grid.columns.len()).filter(|place| wide || grid.columns[*place].priority == 0).collect();
    let with_namespace = command.arguments.has("all-namespaces") && resource.namespaced;
    let show_labels = command.arguments.has("show-labels");
    let labels: Vec<&str> =
        command.arguments.values("label-columns").flat_map(|names| names.split(',')).collect();
    let head = headers.then(|| {
        let mut row: Vec<String> = Vec::new();
        row.extend(with_namespace.then(|| "NAMESPACE".to_owned()));
        row.extend(shown.iter().map(|place| grid.columns[*place].name.to_uppercase()));
        row.extend(labels.iter().map(|label| label.rsplit('/').next().unwrap_or_default().to_uppercase()));
        row.extend(show_labels.then(|| "LABELS".to_owned()));
        row
    });
    let name_column = grid.columns.iter().position(|column| column.format == "name");
    let rows = grid.rows.iter().map(|Row { cells, namespace, labels: own, .. }| {
        let mut row: Vec<String> = Vec::new();
        row.extend(with_namespace.then(|| namespace.clone()));
        row.extend(shown.iter().filter_map(|place| {
            let cell = cells.get(*place)?;
            let named = with_kind && Some(*place) == name_column;
            Some(if named { format!("{}/{cell}", resource.singular_qualified()) } else { cell.clone() })
        }));
        row.extend(labels.iter().map(|label| own[*label].as_str().unwrap_or_default().to_owned()));
        row.extend(show_labels.then(|| super::pairs(own)));
        row
    });
    table::columns(head.into_iter().chain(rows))
}

/// As objects.
async fn objects(session: &Session<'_>, command: &Kubectl, targets: &[Target]) -> Result<Output, Trouble> {
    let mut output = Output::default();
    let mut items = Vec::new();
    for target in targets {
        let uri = uri(target, command, "");
        let found = match target.name {
            Some(_) => session.object(&uri).await.map(|object| vec![object]),
            None => session.list(&uri).await.map(|objects| objects.told(&target.resource.name, &mut output)),
        };
        match found {
            Ok(found) => items.extend(found),
            Err(trouble) if trouble.is_not_found() && command.arguments.has("ignore-not-found") => {}
            Err(refused @ Trouble::Refused(_)) => return Err(refused),
            Err(trouble) => output.fails(&trouble),
        }
    }
    let is_single = matches!(targets, [Target { name: Some(_), .. }]);
    if is_single && items.is_empty() {
        return Ok(output);
    }
    let asked = command.clone();
    let shown = session.apart(move |work| {
        if let Some(path) = &asked.sort {
            sort(&mut items, path, |item| item, work)?;
        }
        shown(&asked.format, items, is_single, asked.arguments.has("no-headers"), work)
    });
    output.stdout = shown.await?.map_err(Trouble::Said)?;
    Ok(output)
}

/// Objects in the format that was asked for.
pub(super) fn shown(
    format: &Format,
    mut items: Vec<Value>,
    is_single: bool,
    no_headers: bool,
    work: &Work,
) -> Result<String, String> {
    Ok(match format {
        Format::Name => items.iter().map(|item| format!("{}\n", name_of(item))).collect(),
        Format::Columns(columns) => custom(columns, &items, no_headers, work)?,
        other => {
            let all = match items.pop() {
                Some(item) if is_single => item,
                last => {
                    items.extend(last);
                    json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
                }
            };
            match other {
                Format::Json => json_text::indented(&all, &work.stop),
                Format::Yaml => yaml::write_until(&all, &work.stop),
                Format::Path { template, as_json: false } => template.show(&all, work)?,
                Format::Path { template, .. } => {
                    // Values within values multiply.
                    let values = json_text::indented(&template.values(&all, work)?, &work.stop);
                    if is_full(&values) {
                        return Err(TOO_LARGE.to_owned());
                    }
                    values
                }
                _ => String::new(),
            }
        }
    })
}

fn name_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["kind"]).to_lowercase(), text(&object["metadata"]["name"]));
    match text(&object["apiVersion"]).split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

const TOO_LARGE: &str = "the output is larger than 8 MiB: ask for fewer objects or fields";

fn custom(
    columns: &[(String, Template)],
    items: &[Value],
    no_headers: bool,
    work: &Work,
) -> Result<String, String> {
    let (mut lines, none) = (String::new(), Value::from("<none>"));
    if !no_headers {
        let headers: Vec<&str> = columns.iter().map(|(header, _)| header.as_str()).collect();
        lines = headers.join("\t") + "\n";
    }
    for item in items {
        for (column, (_, path)) in columns.iter().enumerate() {
            if column > 0 {
                lines.push('\t');
            }
            let mut values = path.values(item, work)?;
            if values.is_empty() {
                values.push(&none);
            }
            for (place, value) in values.iter().enumerate() {
                if place > 0 {
                    lines.push(',');
                }
                add_go_text(value, &mut lines);
                if is_full(&lines) {
                    return Err(TOO_LARGE.to_owned());
                }
            }
        }
        lines.push('\n');
    }
    Ok(table::aligned(&lines))
}

/// By the first value of a path; objects without it come first.
///
/// # Errors
/// That looks at too much.
pub(super) fn sort<T>(
    items: &mut Vec<T>,
    path: &Template,
    object: impl Fn(&T) -> &Value,
    work: &Work,
) -> Result<(), String> {
    let mut ranked = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        let values = path.values(object(&item), work).unwrap_or_default();
        work.take(1)?;
        ranked.push((values.first().map_or(Rank::Missing, |value| Rank::of(value)), item));
    }
    ranked.sort_by(|one, other| one.0.cmp(&other.0));
    items.extend(ranked.into_iter().map(|(_, item)| item));
    Ok(())
}

/// Where a value stands among others of any kind: an order of all of them, as sorting needs one.
#[derive(Clone, Debug)]
enum Rank {
    Missing,
    Null,
    Truth(bool),
    /// Also of text that is a quantity.
    Number(f64),
    Text(String),
    Other,
}

impl Rank {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Truth(*truth),
            Value::Number(number) => Self::Number(number.as_f64().unwrap_or_default()),
            Value::String(text) => {
                quantity::parse(text).map_or_else(|| Self::Text(text.clone()), Self::Number)
            }
            Value::Array(_) | Value::Object(_) => Self::Other,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Missing => 0,
            Self::Null => 1,
            Self::Truth(_) => 2,
            Self::Number(_) => 3,
            Self::Text(_) => 4,
            Self::Other => 5,
        }
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Truth(one), Self::Truth(other)) => one.cmp(other),
            (Self::Number(one), Self::Number(other)) => one.total_cmp(other),
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            _ => self.kind().cmp(&other.kind()),
        }
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::executor::command::work::Stop;

    fn sorted(values: &[Value]) -> Vec<Value> {
        let path = Template::relaxed(".v").unwrap();
        let mut items: Vec<Value> = values.iter().map(|value| json!({"v": value})).collect();
        sort(&mut items, &path, |item| item, &Work::until(Stop::default())).unwrap();
        items.into_iter().map(|mut item| item["v"].take()).collect()
    }

    /// Of columns and items together.
    #[test]
    fn a_command_looks_at_so_many_values_and_ends_where_nobody_waits() {
        let items: Vec<Value> = (0..100).map(|n| json!({"a": [n, {"b": n}]})).collect();
        let columns: Vec<_> =
            (0..64).map(|n| (n.to_string(), Template::relaxed("..*..*").unwrap())).collect();
        let format = |name: &str| match name {
            "columns" => Format::Columns(columns.clone()),
            "path" => Format::Path {
                template: Template::parse("{range .items[*]}{..*}{end}", true).unwrap(),
                as_json: false,
            },
            "json" => Format::Json,
            _ => Format::Yaml,
        };
        for name in ["columns", "path", "json", "yaml"] {
            let whole =
                shown(&format(name), items.clone(), false, false, &Work::until(Stop::default())).unwrap();
            let stopped = shown(&format(name), items.clone(), false, false, &Work::until(Stop::at_look(50)));
            assert!(stopped.map_or(0, |shown| shown.len()) < whole.len() / 2, "{name}");
        }
        let work = Work::until(Stop::default());
        custom(&columns, &items, true, &work).unwrap();
        assert!(work.taken() > 64 * 100 * 10, "{}", work.taken());
    }

    #[test]
    fn numbers_quantities_and_texts_have_one_order() {
        let values =
            [json!("10.1.1"), json!(2), json!("10"), json!("9"), json!("1Ki"), json!(true), json!({})];
        let expected =
            [json!(true), json!(2), json!("9"), json!("10"), json!("1Ki"), json!("10.1.1"), json!({})];
        assert_eq!(sorted(&values), expected);
    }

    proptest! {
        /// Without one order of all values, sorting may panic.
        #[test]
        fn any_values_have_one_order(
            values in proptest::collection::vec(
                prop_oneof![
                    any::<i32>().prop_map(Value::from), any::<f64>().prop_map(Value::from), any::<bool>().prop_map(Value::from),
                    "[0-9]{1,3}(\\.[0-9]{1,2}){0,2}(m|Ki|e9|e999)?".prop_map(Value::from), "\\PC{0,3}".prop_map(Value::from),
                    Just(Value::Null), Just(json!([1])),
                ],
                0..60,
            )
        ) {
            let ranks: Vec<Rank> = values.iter().map(Rank::of).collect();
            for one in &ranks {
                for other in &ranks {
                    prop_assert_eq!(one.cmp(other), other.cmp(one).reverse());
                    for third in &ranks {
                        prop_assert!(one > other || other > third || one <= third, "{one:?} {other:?} {third:?}");
                    }
                }
            }
            prop_assert_eq!(sorted(&values).len(), values.len());
        }
    }
}
