/** The part of d3-dsv that our tests call; the package brings no types. */
declare module 'd3-dsv' {
  export function csvParseRows(text: string): string[][];
}
