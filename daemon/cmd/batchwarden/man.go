package main

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchwarden/daemon/version"
	"batchwarden/ipc/client"
)

// written are the pages that no command definition says: of the services and of the files.
//
//go:embed man
var written embed.FS

func (a *app) manCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "man --dir DIR",
		Short: "Write the manual pages into a directory",
		Long: `Write the manual pages of this program, made of the same definitions as its --help, and those of the services and their
files into man1, man5, man7 and man8 below the directory. The same program writes the same octets: the date is that of
SOURCE_DATE_EPOCH, else of the commit that it was built from.`,
		Example: "  batchwarden man --dir /usr/local/share/man",
		Args:    cobra.NoArgs,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usage("--dir is missing; it names the directory to write into, such as /usr/local/share/man")
			}
			date, err := manDate()
			if err != nil {
				return err
			}
			pages, err := manPages(cmd.Root(), date)
			if err != nil {
				return err
			}
			for name, text := range pages {
				file := filepath.Join(dir, "man"+name[len(name)-1:], name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(a.out, "%s below %s\n", counted(len(pages), "page"), clean(dir))
			return err
		}),
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the `DIR`ectory to write into")
	return cmd
}

// manDate is what the pages are dated, "" when nothing says.
func manDate() (string, error) {
	if text := os.Getenv("SOURCE_DATE_EPOCH"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return "", usage("SOURCE_DATE_EPOCH is %q, not a number of seconds", text)
		}
		return time.Unix(seconds, 0).UTC().Format(time.DateOnly), nil
	}
	if built, ok := debug.ReadBuildInfo(); ok {
		for _, s := range built.Settings {
			if s.Key == "vcs.time" && len(s.Value) >= len(time.DateOnly) {
				return s.Value[:len(time.DateOnly)], nil
			}
		}
	}
	return "", nil
}

// manPages are all pages by their file's name.
func manPages(root *cobra.Command, date string) (map[string]string, error) {
	pages := map[string]string{"batchwarden-concepts.7": conceptsPage(date)}
	var add func(*cobra.Command)
	add = func(cmd *cobra.Command) {
		if cmd != root && !cmd.IsAvailableCommand() {
			return // a topic of help, or hidden
		}
		cmd.InitDefaultHelpFlag()
		pages[pageName(cmd)+".1"] = commandPage(cmd, date)
		for _, sub := range cmd.Commands() {
			add(sub)
		}
	}
	root.InitDefaultCompletionCmd()
	root.PersistentFlags().Lookup("socket").DefValue = client.DefaultSocket // whatever the environment says
	add(root)
	files, err := fs.Glob(written, "man/*")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := written.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(file)
		pages[name] = heading(strings.TrimSuffix(name, filepath.Ext(name)), name[len(name)-1:], date) + string(text)
	}
	return pages, nil
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

func heading(title, section, date string) string {
	return fmt.Sprintf(".TH %q %q %q %q %q\n", strings.ToUpper(title), section, date, "batchwarden "+version.Number, "batchwarden")
}

// commandPage is the page of one command.
func commandPage(cmd *cobra.Command, date string) string {
	var b strings.Builder
	b.WriteString(heading(pageName(cmd), "1", date))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(pageName(cmd)), roff(cmd.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.nf\n%s\n.fi\n", roff(cmd.UseLine()))
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s", paragraphs(cmp.Or(cmd.Long, cmd.Short+".")))
	var subs, also []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			subs = append(subs, fmt.Sprintf(".TP\n\\fB%s\\fR\n%s\n", roff(sub.Name()), roff(sub.Short)))
			also = append(also, pageName(sub)+"(1)")
		}
	}
	if len(subs) > 0 {
		b.WriteString(".SH COMMANDS\n" + strings.Join(subs, ""))
	}
	b.WriteString(options("OPTIONS", cmd.NonInheritedFlags()))
	b.WriteString(options("OPTIONS OF THE COMMANDS ABOVE IT", cmd.InheritedFlags()))
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(cmd.Example))
	}
	if cmd.HasParent() {
		also = append([]string{pageName(cmd.Parent()) + "(1)"}, also...)
	} else {
		also = append(also, "batchwarden-concepts(7)", "batchwarden.yaml(5)", "limits.yaml(5)", "batchwardend(8)", "batchwarden-launcher(8)")
	}
	fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", roff(strings.Join(also, ", ")))
	return b.String()
}

func options(title string, flags *pflag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		value, text := pflag.UnquoteUsage(f)
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fR", roff(name))
		if value != "" {
			fmt.Fprintf(&b, " \\fI%s\\fR", roff(value))
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" && f.DefValue != "[]" && !strings.Contains(text, "(default") {
			text += " (default " + f.DefValue + ")"
		}
		b.WriteString("\n" + roff(text) + "\n")
	})
	if b.Len() == 0 {
		return ""
	}
	return ".SH " + title + "\n" + b.String()
}

// paragraphs is a text of help: lines that begin with a space are shown as they are, others flow.
func paragraphs(text string) string {
	var b strings.Builder
	as := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if is := strings.HasPrefix(line, " "); is != as {
			b.WriteString(map[bool]string{true: ".nf\n", false: ".fi\n"}[is])
			as = is
		}
		if line == "" {
			line = ".PP"
		} else {
			line = roff(line)
		}
		b.WriteString(line + "\n")
	}
	if as {
		b.WriteString(".fi\n")
	}
	return b.String()
}

// roff is text as the formatter takes it for text.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

// conceptsPage is the topics of help as one page.
func conceptsPage(date string) string {
	var b strings.Builder
	b.WriteString(heading("batchwarden-concepts", "7", date))
	b.WriteString(".SH NAME\nbatchwarden\\-concepts \\- the words that batchwarden uses\n")
	for _, t := range topics {
		fmt.Fprintf(&b, ".SH %s\n%s", roff(strings.ToUpper(t.name)), paragraphs(t.text))
	}
	b.WriteString(".SH SEE ALSO\nbatchwarden(1), batchwarden.yaml(5), limits.yaml(5)\n")
	return b.String()
}
