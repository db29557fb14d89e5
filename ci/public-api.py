"""Prints the public API that rustdoc's JSON describes: public-api.py FILE, for public-api.sh.

Prints one line per item, sorted: public items with their signatures, types with their auto traits,
and implementations of traits.
"""

import json
import sys

AUTO_TRAITS = ["Send", "Sync", "Unpin", "UnwindSafe", "RefUnwindSafe"]
# The versions of the JSON format that this script accepts.
FORMATS = range(45, 70)

document = json.load(open(sys.argv[1]))
if document["format_version"] not in FORMATS:
    sys.exit(f"rustdoc's JSON has version {document['format_version']}: adapt public-api.py")
index = document["index"]
lines = set()


def path_of(path):
    """Returns the last name of a path, with its generic arguments."""
    return (path.get("path") or path.get("name", "?")).split("::")[-1] + arguments(path.get("args"))


def arguments(args):
    if not args:
        return ""
    if "parenthesized" in args:
        call = args["parenthesized"]
        output = f" -> {type_of(call['output'])}" if call["output"] else ""
        return f"({', '.join(map(type_of, call['inputs']))}){output}"
    angle = args["angle_bracketed"]
    parts = []
    for arg in angle["args"]:
        kind, value = ("infer", "_") if arg == "infer" else next(iter(arg.items()))
        parts.append({"lifetime": lambda: value, "type": lambda: type_of(value), "const": lambda: value["expr"]}.get(kind, lambda: "_")())
    for constraint in angle.get("constraints", []):
        binding = constraint["binding"]
        if "equality" in binding:
            term = binding["equality"]
            parts.append(f"{constraint['name']} = {type_of(term['type']) if 'type' in term else term['constant']['expr']}")
        else:
            parts.append(f"{constraint['name']}: {bounds(binding['constraint'])}")
    return f"<{', '.join(parts)}>" if parts else ""


def bound(item):
    kind, value = next(iter(item.items()))
    if kind == "trait_bound":
        return {"maybe": "?", "none": ""}.get(value["modifier"], value["modifier"]) + path_of(value["trait"])
    return value if kind == "outlives" else f"use<{', '.join(map(str, value))}>"


def bounds(items):
    return " + ".join(map(bound, items))


def type_of(item):
    if item is None:
        return "()"
    if item == "infer":
        return "_"
    kind, value = next(iter(item.items()))
    if kind == "resolved_path":
        return path_of(value)
    if kind in ("generic", "primitive"):
        return value
    if kind == "borrowed_ref":
        lifetime = f"{value['lifetime']} " if value["lifetime"] else ""
        return f"&{lifetime}{'mut ' if value['is_mutable'] else ''}{type_of(value['type'])}"
    if kind == "raw_pointer":
        return f"*{'mut' if value['is_mutable'] else 'const'} {type_of(value['type'])}"
    if kind == "tuple":
        return f"({', '.join(map(type_of, value))})"
    if kind == "slice":
        return f"[{type_of(value)}]"
    if kind == "array":
        return f"[{type_of(value['type'])}; {value['len']}]"
    if kind == "impl_trait":
        return f"impl {bounds(value)}"
    if kind == "dyn_trait":
        traits = " + ".join(path_of(entry["trait"]) for entry in value["traits"])
        return f"dyn {traits}" + (f" + {value['lifetime']}" if value["lifetime"] else "")
    if kind == "qualified_path":
        trait = value["trait"]
        owner = type_of(value["self_type"])
        return f"<{owner} as {path_of(trait)}>::{value['name']}" if trait and trait.get("path") else f"{owner}::{value['name']}"
    if kind == "function_pointer":
        return f"fn{signature(value['sig'])}"
    sys.exit(f"a type of an unknown kind: {kind}")


def generics(item):
    """Returns the generic parameters and the where clause of an item, each as text or empty."""
    parts = []
    for parameter in item["params"]:
        kind, value = next(iter(parameter["kind"].items()))
        if kind == "type":
            if not value["is_synthetic"]:
                parts.append(parameter["name"] + (f": {bounds(value['bounds'])}" if value["bounds"] else ""))
        elif kind == "const":
            parts.append(f"const {parameter['name']}: {type_of(value['type'])}")
        else:
            parts.append(parameter["name"])
    where = []
    for predicate in item["where_predicates"]:
        kind, value = next(iter(predicate.items()))
        if kind == "bound_predicate":
            where.append(f"{type_of(value['type'])}: {bounds(value['bounds'])}")
        elif kind == "lifetime_predicate":
            where.append(f"{value['lifetime']}: {' + '.join(value['outlives'])}")
    return (f"<{', '.join(parts)}>" if parts else ""), (f" where {', '.join(where)}" if where else "")


def signature(sig):
    inputs = ", ".join(f"{name}: {type_of(ty)}" for name, ty in sig["inputs"])
    return f"({inputs})" + (f" -> {type_of(sig['output'])}" if sig["output"] else "")


def function(path, item, prefix="pub "):
    """Adds the line of a function or method."""
    inner = item["inner"]["function"]
    before, where = generics(inner["generics"])
    header = inner["header"]
    words = "".join(f"{word} " for word in ("const", "async", "unsafe") if header.get(f"is_{word}"))
    lines.add(f"{prefix}{words}fn {path}{before}{signature(inner['sig'])}{where}")


def implementations(path, ids):
    """Adds the lines of a type's methods and traits. Returns the type's auto traits."""
    autos = {}
    for impl_id in ids:
        item = index[str(impl_id)]
        impl = item["inner"]["impl"]
        trait = impl["trait"]
        name = trait and path_of(trait)
        if name in AUTO_TRAITS:
            _, where = generics(impl["generics"])
            autos[name] = f"!{name}" if impl["is_negative"] else name + (f"({where.strip()})" if where else "")
        elif impl.get("blanket_impl") or (impl.get("is_synthetic")):
            continue
        elif trait:
            before, where = generics(impl["generics"])
            lines.add(f"impl{before} {name} for {type_of(impl['for'])}{where}  [{path}]")
        else:
            for member in impl["items"]:
                member = index[str(member)]
                if member["visibility"] == "public":
                    if "function" in member["inner"]:
                        function(f"{path}::{member['name']}", member)
                    else:
                        lines.add(f"pub {next(iter(member['inner']))} {path}::{member['name']}")
    return " ".join(autos[name] for name in AUTO_TRAITS if name in autos)


def walk(item, path, seen):
    """Adds the lines of an item that is visible under `path`, and of its members."""
    kind, inner = next(iter(item["inner"].items()))
    if "#[doc(hidden)]" in json.dumps(item.get("attrs", [])):
        return
    if kind == "module":
        for member in inner["items"]:
            if str(member) in index:
                member = index[str(member)]
                name = member["name"] or ""
                walk(member, f"{path}::{name}" if name else path, seen)
    elif kind == "use":
        target = index.get(str(inner["id"])) if inner["id"] is not None else None
        here = f"{path}::{inner['name']}" if not path.endswith(f"::{inner['name']}") else path
        if target is None or target["crate_id"] != 0:
            lines.add(f"pub use {here} = {inner['source'].split('::')[-1]} (of another crate)")
        elif inner["is_glob"]:
            walk(target, path, seen)
        elif (inner["id"], here) not in seen:
            walk(target, here, seen | {(inner["id"], here)})
    elif kind in ("struct", "enum", "union"):
        before, where = generics(inner["generics"])
        lines.add(f"pub {kind} {path}{before}{where}: {implementations(path, inner['impls'])}")
        members = inner.get("variants") or []
        if kind == "struct" and "plain" in (inner["kind"] if isinstance(inner["kind"], dict) else {}):
            members = inner["kind"]["plain"]["fields"]
        for member in members:
            member = index.get(str(member))
            if member and member["visibility"] in ("public", "default"):
                value = member["inner"].get("struct_field")
                if value and member["visibility"] != "public":
                    continue
                lines.add(f"pub {'field' if value else 'variant'} {path}::{member['name']}" + (f": {type_of(value)}" if value else ""))
    elif kind == "trait":
        before, where = generics(inner["generics"])
        lines.add(f"pub trait {path}{before}: {bounds(inner['bounds'])}{where}")
        for member in inner["items"]:
            member = index[str(member)]
            if "function" in member["inner"]:
                provided = "provided " if member["inner"]["function"]["has_body"] else "required "
                function(f"{path}::{member['name']}", member, provided)
            else:
                lines.add(f"associated {path}::{member['name']}")
    elif kind == "function":
        function(path, item)
    elif kind in ("constant", "static"):
        lines.add(f"pub {kind} {path}: {type_of(inner['type'])}")
    elif kind == "type_alias":
        lines.add(f"pub type {path} = {type_of(inner['type'])}")
    elif kind in ("macro", "proc_macro"):
        lines.add(f"pub macro {path}")


walk(index[str(document["root"])], "netpoll", frozenset())
print("\n".join(sorted(lines)))
