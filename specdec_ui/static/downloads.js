// Downloads. Each line of the value is a file, which is made here so that the server stores none.
import { make } from "./dom.js";
import { followLines } from "./lines.js";

export default function mount(view) {
  followLines(
    view,
    () => {},
    (line) => {
      const address = URL.createObjectURL(new Blob([line.text], { type: line.type }));
      const link = make("a", "");
      link.href = address;
      link.download = line.name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
    },
  );
}
