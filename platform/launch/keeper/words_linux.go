package keeper

import (
	"cmp"
	"path/filepath"
	"strings"

	"batchwarden/platform/account"
	"batchwarden/platform/launch"
)

// asWritten makes a login shell turn into a command, word for word.
const asWritten = `exec "$@"`

// words are what the job executes: a file, empty for where the first word says, and its arguments. A script lies at path.
func words(s *launch.Spec, a *account.Account, path string) (file string, argv []string) {
	shell := cmp.Or(a.Shell, "/bin/sh")
	name := filepath.Base(shell)
	switch {
	case s.CommandLine != "" && s.Login:
		return shell, []string{"-" + name, "-c", s.CommandLine}
	case s.CommandLine != "":
		return shell, []string{name, "-c", s.CommandLine}
	case s.Script != nil:
		argv = append(interpreter(s.Script, shell), path)
		argv = append(argv, s.Script.Args...)
	default:
		argv = s.Argv
	}
	if s.Login {
		return shell, append([]string{"-" + name, "-c", asWritten, name}, argv...)
	}
	return "", argv
}

// interpreter reads #! as the kernel does: a file, and the rest of the line as one argument. The kernel itself cannot be
// left to it: the file system that scripts lie in may be one without execution.
func interpreter(s *launch.Script, shell string) []string {
	if len(s.Interpreter) > 0 {
		return append([]string{}, s.Interpreter...)
	}
	line, _, _ := strings.Cut(string(s.Text[:min(len(s.Text), 256)]), "\n")
	line, marked := strings.CutPrefix(line, "#!")
	file, argument, _ := strings.Cut(strings.Trim(line, " \t"), " ")
	if !marked || file == "" {
		return []string{shell}
	}
	if argument = strings.Trim(argument, " \t"); argument != "" {
		return []string{file, argument}
	}
	return []string{file}
}
