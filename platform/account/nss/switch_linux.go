package nss

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
)

// source is one word of a line of nsswitch.conf.
type source struct {
	name string
	// actions has r for return and c for anything else, for success, notfound, unavail and tryagain.
	actions string
	plain   bool // nothing was written about actions
}

// sources are asked in their order.
type sources []source

// conf is what nsswitch.conf says. Where it says nothing the C library takes "files".
type conf struct {
	accounts, groups sources
	// members are asked for an account's groups: all of them, unless a line of its own says otherwise.
	members sources
}

const (
	maxConf  = 1 << 20
	defaults = "rccc"
)

var statuses = map[string]int{"SUCCESS": 0, "NOTFOUND": 1, "UNAVAIL": 2, "TRYAGAIN": 3}

func readConf(path string, there bool) (*conf, error) {
	var text []byte
	if there {
		info, err := os.Stat(path)
		if err == nil && info.Size() > maxConf {
			err = fmt.Errorf("%s: it is longer than %d octets", path, maxConf)
		}
		if err == nil {
			text, err = os.ReadFile(path)
		}
		if err != nil {
			return nil, err
		}
	}
	c, err := parseConf(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// parseConf refuses what it does not understand: the C library would pass over some of it, but nobody could say here
// what that means.
func parseConf(text []byte) (*conf, error) {
	lines := map[string]sources{}
	for line := range bytes.Lines(text) {
		line, _, _ := bytes.Cut(line, []byte("#"))
		name, rest, ok := strings.Cut(string(line), ":")
		if name = strings.TrimSpace(name); !ok || name != "passwd" && name != "group" && name != "initgroups" {
			continue
		}
		if lines[name] != nil {
			return nil, fmt.Errorf("there are two lines for %s", name)
		}
		s, err := parseSources(rest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		lines[name] = s
	}
	files := sources{{"files", defaults, true}}
	c := &conf{accounts: lines["passwd"], groups: lines["group"], members: lines["initgroups"]}
	if c.accounts == nil {
		c.accounts = files
	}
	if c.groups == nil {
		c.groups = files
	}
	if c.members == nil {
		// Without a line of its own, what one source knows does not keep the next from being asked.
		for _, s := range c.groups {
			s.actions = "c" + s.actions[1:]
			c.members = append(c.members, s)
		}
	}
	return c, nil
}

func parseSources(text string) (sources, error) {
	list := sources{}
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		if text == "" {
			return list, nil
		}
		if text[0] == '[' {
			inner, rest, ok := strings.Cut(text[1:], "]")
			if !ok || len(list) == 0 {
				return nil, errors.New("a bracket has no end, or no source before it")
			}
			if err := list[len(list)-1].act(inner); err != nil {
				return nil, err
			}
			text = rest
			continue
		}
		end := strings.IndexAny(text, " \t\r\n[")
		if end < 0 {
			end = len(text)
		}
		s := source{text[:end], defaults, true}
		if len(s.name) > 63 || strings.Trim(s.name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
			return nil, fmt.Errorf("%.100q is no name of a source", s.name)
		}
		list = append(list, s)
		text = text[end:]
	}
}

// act takes over what stands in a bracket behind the source.
func (s *source) act(text string) error {
	actions := []byte(s.actions)
	for word := range strings.FieldsSeq(text) {
		status, action, ok := strings.Cut(word, "=")
		status, negated := strings.CutPrefix(status, "!")
		at, known := statuses[strings.ToUpper(status)]
		letter := byte('c')
		switch strings.ToLower(action) {
		case "return":
			letter = 'r'
		case "continue", "merge":
		default:
			known = false
		}
		if !ok || !known {
			return fmt.Errorf("%.100q is no status and action", word)
		}
		for i := range actions {
			if (i == at) != negated {
				actions[i] = letter
			}
		}
	}
	s.actions, s.plain = string(actions), false
	return nil
}

// String is how the program wants them.
func (s sources) String() string {
	words := make([]string, len(s))
	for i, one := range s {
		words[i] = one.name + ":" + one.actions
	}
	return strings.Join(words, " ")
}
