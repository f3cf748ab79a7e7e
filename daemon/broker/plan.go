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

	"batchwarden/ipc/wire"
	"batchwarden/platform/launch"
)

// maxName bounds environment names, labels and the like.
const maxName = 255

// plan turns a launch body into what the launcher is to run, all but the
// account: that comes from the batch user, never from the caller. Whatever is
// wrong with the body is found here, and named by its member.
func (b *Broker) plan(c *caller, body *wire.Launch) (launch.Spec, *wire.Problem) {
	for _, check := range []func(*wire.Launch) *wire.Problem{checkID, checkCommand, checkDir, checkEnv, checkLabels, checkStdio} {
		if p := check(body); p != nil {
			return launch.Spec{}, p
		}
	}
	umask, p := umaskOf(body.Unix)
	if p != nil {
		return launch.Spec{}, p
	}
	return launch.Spec{
		Owner: c.client.Name, ID: body.ID, Hash: sumOf(body),
		Argv: body.Command, Dir: body.Dir, Env: body.Env, Umask: umask,
		Stdio: cmp.Or(body.Stdio, "capture"), CaptureMax: b.Config.Jobs.CaptureMax,
		Timeout: time.Duration(body.Timeout), Grace: b.Config.Jobs.Grace, Keep: b.Config.Jobs.Keep,
	}, nil
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

func checkCommand(body *wire.Launch) *wire.Problem {
	ways := 0
	for _, given := range []bool{len(body.Command) > 0, body.CommandLine != "", len(body.Script) > 0} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return wire.Invalid("command", "exactly one of command, command_line and script is needed")
	case body.CommandLine != "":
		return notYet("command_line")
	case len(body.Script) > 0:
		return notYet("script")
	case body.Login:
		return notYet("login")
	case body.Stdin != "":
		return notYet("stdin")
	case len(body.Command) > wire.MaxArgs:
		return wire.Invalid("command", fmt.Sprintf("command has %d words, at most %d", len(body.Command), wire.MaxArgs))
	case body.Command[0] == "":
		return wire.Invalid("command[0]", "the program's name is empty")
	}
	for i, word := range body.Command {
		if strings.ContainsRune(word, 0) {
			return wire.Invalid(fmt.Sprintf("command[%d]", i), "a NUL cannot be passed to a program")
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
	switch body.Stdio {
	case "", "capture", "null", "passed":
		return nil
	}
	return wire.Invalid("stdio", fmt.Sprintf("stdio is %q; capture, passed and null are known", body.Stdio))
}

func umaskOf(u *wire.Unix) (*uint32, *wire.Problem) {
	switch {
	case u == nil:
		return nil, nil
	case u.Nice != 0:
		return nil, notYet("unix.nice")
	case len(u.Limits) > 0:
		return nil, notYet("unix.limits")
	case u.Umask == "":
		return nil, nil
	}
	v, err := strconv.ParseUint(u.Umask, 8, 32)
	if err != nil || v > 0o777 {
		return nil, wire.Invalid("unix.umask", fmt.Sprintf("umask %q is not an octal number up to 0777", u.Umask))
	}
	umask := uint32(v)
	return &umask, nil
}

// notYet refuses a member of the contract that this version does not have,
// rather than run something else than was asked for.
func notYet(field string) *wire.Problem {
	p := wire.NewProblem(wire.Unsupported, fmt.Sprintf("%s is not supported by this version", field))
	p.Field = field
	return p
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
