/** Thin stand-in with the name and signature of `jsr:@std/cli/parse-args`, over `npm:minimist`-style rules: the part we use. */
export {};
