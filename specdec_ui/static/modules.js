// Loader of the other files, which are ES modules. Their texts come with the page; each becomes a module when a view
// first imports it. Imports have the form `from "./name.js"` or `import "./name.js"`, relative to this folder.
const addresses = new Map();

function moduleAddress(name) {
  if (!addresses.has(name)) {
    const text = window.specdecFiles[name].replace(
      /^(import|.* from) "\.\/([\w./-]+)";$/gm,
      (line, head, imported) => `${head} "${moduleAddress(imported)}";`,
    );
    addresses.set(name, URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  }
  return addresses.get(name);
}

window.specdecImport = (name) => import(moduleAddress(name));
window.dispatchEvent(new Event("specdec:modules"));
