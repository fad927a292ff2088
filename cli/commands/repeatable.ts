/** The values of an option that may be repeated, in their order; for Commander's `option`. */
export function repeatable(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}
