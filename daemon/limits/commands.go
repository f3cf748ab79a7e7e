package limits

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"batchwarden/daemon/config"
)

// commands wants the command below one of the allowed directories or equal to one of the allowed files, component by
// component, after all links are resolved on both sides. An empty list does not restrict.
func (q *question) commands() error {
	if len(q.AllowCommands) == 0 {
		return nil
	}
	path, err := q.Command.Path()
	if err != nil {
		return fmt.Errorf("allow_commands: %w", err)
	}
	var wrong error
	for _, c := range q.AllowCommands {
		allowed, err := resolve(c)
		if err != nil || !covers(allowed, path, c.Dir()) {
			continue // an entry that cannot be found opens nothing
		}
		if c.SHA256 == "" {
			return nil
		}
		sum, err := q.Command.SHA256()
		if err != nil {
			return fmt.Errorf("allow_commands: %w", err)
		}
		if strings.EqualFold(sum, c.SHA256) {
			return nil
		}
		wrong = fmt.Errorf("allow_commands: %q has another content (sha256 %s)", path, sum)
	}
	if wrong != nil {
		return wrong
	}
	return fmt.Errorf("allow_commands: %q is not among them", path)
}

func resolve(c config.Command) (string, error) { return filepath.EvalSymlinks(c.Path) }

// covers reports whether allowed is path or, for a directory, an ancestor of it.
func covers(allowed, path string, dir bool) bool {
	if !dir {
		return allowed == path
	}
	return strings.HasPrefix(path, strings.TrimSuffix(allowed, "/")+"/")
}

// env refuses names that change what a program does before it looks at its arguments. With allow_commands every name
// does: what may run is no use if the environment decides what it does.
func (q *question) env() error {
	for _, name := range q.Env {
		if slices.Contains(q.AllowEnv, name) {
			continue
		}
		if len(q.AllowCommands) > 0 {
			return fmt.Errorf("allow_env: %q is not there, and allow_commands is set", name)
		}
		if powerful(name) {
			return fmt.Errorf("allow_env: %q is not there", name)
		}
	}
	return nil
}

// powerful reports whether a name steers the loader, a shell or an interpreter, or what the launcher sets itself.
func powerful(name string) bool {
	for _, prefix := range []string{"LD_", "GLIBC_", "PYTHON", "PERL5", "RUBY", "BASH_FUNC_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case "BASH_ENV", "ENV", "IFS", "SHELLOPTS", "BASHOPTS", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS",
		"GCONV_PATH", "PERLLIB", "PATH", "HOME", "USER", "LOGNAME", "SHELL":
		return true
	}
	return false
}
