// Each line of the value is a file to be saved: made here, so that the server keeps none.
followLines(
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
