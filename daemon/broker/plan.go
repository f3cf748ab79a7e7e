package broker

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/launch"
	"batchwarden/vault/snapshot"
)

// maxName bounds environment names, labels and the like.
const maxName = 255

// plan turns a launch body into what the launcher is to run, all but the
// account: that comes from the batch user, never from the caller. Whatever is
// wrong with the body is found here, and named by its member.
func (b *Broker) plan(c *caller, body *wire.Launch) (launch.Spec, *wire.Problem) {
	for _, check := range []func(*wire.Launch) *wire.Problem{checkID, checkWords, checkDir, checkEnv, checkLabels, checkStdio, checkUnix} {
		if p := check(body); p != nil {
			return launch.Spec{}, p
		}
	}
	jobs := &c.view.config.Jobs
	spec := launch.Spec{
		Owner: c.client.Name, ID: body.ID, Hash: sumOf(body), PAM: c.client.PAM,
		Argv: body.Command, CommandLine: body.CommandLine, Login: body.Login, Stdin: []byte(body.Stdin),
		Dir: body.Dir, Env: body.Env, Stdio: cmp.Or(body.Stdio, "capture"), CaptureMax: jobs.CaptureMax,
		Timeout: time.Duration(body.Timeout), Grace: jobs.Grace, Keep: jobs.Keep,
	}
	if s := body.Script; s != nil {
		spec.Script = &launch.Script{Text: []byte(s.Text), Interpreter: s.Interpreter, Args: s.Args}
	}
	if u := body.Unix; u != nil {
		spec.Umask, spec.Nice, spec.Limits = umaskOf(u), u.Nice, u.Limits
	}
	return spec, nil
}

// runAs completes what is to run with what the batch user says about it.
func runAs(spec *launch.Spec, u *snapshot.BatchUser) {
	spec.Account, spec.Group, spec.PAM = u.Username, u.Group, cmp.Or(u.PAM, spec.PAM)
}

func checkID(body *wire.Launch) *wire.Problem {
	if len(body.ID) > wire.MaxID {
		return wire.Invalid("id", fmt.Sprintf("id has %d characters, at most %d", len(body.ID), wire.MaxID))
	}
	for _, r := range body.ID {
		if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@-", r) {
			return wire.Invalid("id", fmt.Sprintf("id has the character %q; letters, digits and . _ : @ - are allowed", r))
		}
	}
	if body.BatchUser == "" {
		return wire.Invalid("batch_user", "batch_user is missing")
	}
	return nil
}

// checkWords wants exactly one thing to run, in words that can be passed to a program.
func checkWords(body *wire.Launch) *wire.Problem {
	ways := 0
	for _, given := range []bool{len(body.Command) > 0, body.CommandLine != "", body.Script != nil} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return wire.Invalid("command", "exactly one of command, command_line and script is needed")
	case strings.ContainsRune(body.CommandLine, 0):
		return wire.Invalid("command_line", "a NUL cannot be passed to a program")
	case body.Script != nil:
		return checkScript(body.Script)
	case len(body.Command) > 0 && body.Command[0] == "":
		return wire.Invalid("command[0]", "the program's name is empty")
	}
	return passable("command", body.Command)
}

func checkScript(s *wire.Script) *wire.Problem {
	switch {
	case s.Text == "":
		return wire.Invalid("script.text", "the script is empty")
	case len(s.Text) > wire.MaxText:
		return wire.Invalid("script.text", fmt.Sprintf("the script has %d octets, at most %d", len(s.Text), wire.MaxText))
	case len(s.Interpreter) > 0 && s.Interpreter[0] == "":
		return wire.Invalid("script.interpreter[0]", "the interpreter's name is empty")
	case strings.HasPrefix(s.Text, "#!") && strings.ContainsRune(firstLine(s.Text), 0):
		return wire.Invalid("script.text", "a NUL cannot be passed to a program")
	}
	if p := passable("script.interpreter", s.Interpreter); p != nil {
		return p
	}
	return passable("script.args", s.Args)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// passable wants words that can be the arguments of a program.
func passable(field string, words []string) *wire.Problem {
	if len(words) > wire.MaxArgs {
		return wire.Invalid(field, fmt.Sprintf("%s has %d words, at most %d", field, len(words), wire.MaxArgs))
	}
	for i, word := range words {
		if strings.ContainsRune(word, 0) {
			return wire.Invalid(fmt.Sprintf("%s[%d]", field, i), "a NUL cannot be passed to a program")
		}
	}
	return nil
}

func checkDir(body *wire.Launch) *wire.Problem {
	if body.Dir != "" && !path.IsAbs(body.Dir) || strings.ContainsRune(body.Dir, 0) || len(body.Dir) > 4096 {
		return wire.Invalid("dir", "dir must be an absolute path")
	}
	return nil
}

func checkEnv(body *wire.Launch) *wire.Problem {
	if len(body.Env) > wire.MaxEnv {
		return wire.Invalid("env", fmt.Sprintf("env has %d members, at most %d", len(body.Env), wire.MaxEnv))
	}
	for name, value := range body.Env {
		if name == "" || len(name) > maxName || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			return wire.Invalid("env", "a member of env has a name that is empty, longer than 255 octets or has a '=', or has a NUL")
		}
	}
	return nil
}

func checkLabels(body *wire.Launch) *wire.Problem {
	if len(body.Labels) > wire.MaxLabels {
		return wire.Invalid("labels", fmt.Sprintf("there are %d labels, at most %d", len(body.Labels), wire.MaxLabels))
	}
	for name, value := range body.Labels {
		if name == "" || len(name) > maxName || len(value) > maxName {
			return wire.Invalid("labels", "a label's name must have 1 to 255 octets, its value at most 255")
		}
	}
	return nil
}

func checkStdio(body *wire.Launch) *wire.Problem {
	switch {
	case len(body.Stdin) > wire.MaxText:
		return wire.Invalid("stdin", fmt.Sprintf("stdin has %d octets, at most %d", len(body.Stdin), wire.MaxText))
	case body.Stdio == "passed" && body.Stdin != "":
		return wire.Invalid("stdin", "stdin is one of the descriptors that are passed")
	}
	switch body.Stdio {
	case "", "capture", "null", "passed":
		return nil
	}
	return wire.Invalid("stdio", fmt.Sprintf("stdio is %q; capture, passed and null are known", body.Stdio))
}

func checkUnix(body *wire.Launch) *wire.Problem {
	u := body.Unix
	if u == nil {
		return nil
	}
	if v, err := strconv.ParseUint(cmp.Or(u.Umask, "0"), 8, 32); err != nil || v > 0o777 {
		return wire.Invalid("unix.umask", fmt.Sprintf("umask %q is not an octal number up to 0777", u.Umask))
	}
	if u.Nice < -20 || u.Nice > 19 {
		return wire.Invalid("unix.nice", fmt.Sprintf("nice is %d; -20 to 19 are possible", u.Nice))
	}
	for _, name := range slices.Sorted(maps.Keys(u.Limits)) {
		if !slices.Contains(config.Ceilings, name) {
			return wire.Invalid("unix.limits", fmt.Sprintf("there is no limit %.100q; known: %s", name, strings.Join(config.Ceilings, ", ")))
		}
	}
	return nil
}

// umaskOf is of one that was checked; nil: not given.
func umaskOf(u *wire.Unix) *uint32 {
	v, err := strconv.ParseUint(u.Umask, 8, 32)
	if err != nil {
		return nil
	}
	umask := uint32(v)
	return &umask
}

// sumOf is the same for two bodies that ask for the same.
func sumOf(body *wire.Launch) string {
	text, err := json.Marshal(body)
	if err != nil {
		panic("broker: a launch body that was JSON is none any more: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// wordsOf are what an auditor is told of what runs: a command's words, a
// command line as one, a script's interpreter and arguments.
func wordsOf(body *wire.Launch) []string {
	switch {
	case body.CommandLine != "":
		return []string{body.CommandLine}
	case body.Script != nil:
		return slices.Concat(body.Script.Interpreter, body.Script.Args)
	}
	return body.Command
}

func scriptSum(s *wire.Script) string {
	if s == nil {
		return ""
	}
	sum := sha256.Sum256([]byte(s.Text))
	return hex.EncodeToString(sum[:])
}

// argvSum and envSum tell what was run without saying it: arguments of batch
// jobs hold passwords more often than not.
func argvSum(argv []string) string { return sumAll(slices.Values(argv)) }

func envSum(env map[string]string) string {
	if len(env) == 0 {
		return ""
	}
	return sumAll(func(yield func(string) bool) {
		for _, name := range slices.Sorted(maps.Keys(env)) {
			if !yield(name + "=" + env[name]) {
				return
			}
		}
	})
}

func sumAll(words func(func(string) bool)) string {
	h := sha256.New()
	for word := range words {
		h.Write([]byte(word))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))
}
