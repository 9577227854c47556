/**
 * `dkv completions`: scripts that make a shell complete commands and options. Used by `cli.ts`.
 *
 * @module
 */

import { OPTIONS, type OptionSpec, own, UsageError } from "./arguments.ts";
import { type CommandName, COMMANDS, specOf } from "./commands.ts";

const NAMES = Object.keys(COMMANDS) as CommandName[];

/** Options whose value is a file: the shell knows how to complete these. */
const FILES: readonly string[] = ["file", "config", "data"];

const SHELLS: Readonly<Record<string, () => string>> = { bash, zsh, fish };

/**
 * The script for a shell.
 *
 * @throws {UsageError} if there is none.
 */
export function completions(shell: string): string {
  const script = own(SHELLS, shell);
  if (script === undefined) {
    const known = Object.keys(SHELLS).join(", ");
    throw new UsageError(`There are completions for ${known}, not ${shell}`);
  }
  return script();
}

/** What can stand behind a command. */
function wordsOf(name: CommandName): string[] {
  const { actions = [], options } = specOf(name);
  const more = name === "help" ? NAMES : actions;
  return [...more, ...options.map((option) => `--${option}`)];
}

function bash(): string {
  const cases = NAMES.map((name) =>
    `    ${name}) words=${quoted(wordsOf(name).join(" "))} ;;`
  );
  return `# bash completion of dkv: eval "$(dkv completions bash)"
_dkv() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD - 1]}" words
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    words=${quoted(NAMES.join(" "))}
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    return
  fi
  case "$previous" in
    ${FILES.map((name) => `--${name}`).join(" | ")} | import)
      COMPREPLY=($(compgen -f -- "$current"))
      return ;;
  esac
  case "\${COMP_WORDS[1]}" in
${cases.join("\n")}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _dkv dkv`;
}

function zsh(): string {
  const commands = NAMES.map((name) =>
    `    ${quoted(`${name}:${specOf(name).about}`)}`
  );
  const cases = NAMES.map((name) => {
    const { actions = [], options } = specOf(name);
    const rows = options.map((option) => {
      const { kind, about }: OptionSpec = OPTIONS[option];
      const text = about.replace(/[[\]:]/g, "\\$&");
      const value = kind === "flag"
        ? ""
        : FILES.includes(option)
        ? ": :_files"
        : ": : ";
      return quoted(`--${option}[${text}]${value}`);
    });
    const first = name === "help" ? NAMES : actions;
    if (name === "import") rows.push(quoted("1: :_files"));
    if (first.length > 0) rows.push(quoted(`1: :(${first.join(" ")})`));
    return `    ${name}) _arguments ${rows.join(" ")} ;;`;
  });
  return `#compdef dkv
# zsh completion of dkv: eval "$(dkv completions zsh)"
_dkv() {
  local -a commands
  commands=(
${commands.join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join("\n")}
  esac
}
compdef _dkv dkv`;
}

function fish(): string {
  const lines = NAMES.flatMap((name) => {
    const { about, actions = [], options } = specOf(name);
    const first = name === "help" ? NAMES : actions;
    const inside = `complete -c dkv -n '__fish_seen_subcommand_from ${name}'`;
    return [
      `complete -c dkv -n __fish_use_subcommand -a ${name} -d ${quoted(about)}`,
      ...(first.length > 0 ? [`${inside} -a ${quoted(first.join(" "))}`] : []),
      ...(name === "import" ? [`${inside} -F`] : []),
      ...options.map((option) => {
        const { kind, about }: OptionSpec = OPTIONS[option];
        const isFile = FILES.includes(option);
        const value = kind === "flag" ? "" : isFile ? " -r -F" : " -x";
        return `${inside} -l ${option}${value} -d ${quoted(about)}`;
      }),
    ];
  });
  return `# fish completion of dkv: dkv completions fish | source
complete -c dkv -f
${lines.join("\n")}`;
}

/** For all three shells; none of our texts has a single quote in it. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "’")}'`;
}
