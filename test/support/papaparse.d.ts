/** The part of papaparse that our tests compare with; it ships no types. */
declare module 'papaparse' {
  export function parse(
    text: string,
    options: { readonly delimiter: string; readonly newline?: string },
  ): { readonly data: string[][]; readonly errors: readonly unknown[] };
}
