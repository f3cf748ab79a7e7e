package strict

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

func (d *Document) parseYAML(data []byte) (ok bool) {
	if len(data) > MaxYAML {
		d.add(0, 0, "", fmt.Sprintf("is %d bytes of YAML, at most %d; write larger documents as JSON", len(data), MaxYAML))
		return false
	}
	// The parser is somebody else's and has panicked on odd texts before.
	// A text that it cannot take is a faulty text, not the end of a daemon.
	defer func() {
		if r := recover(); r != nil {
			d.add(0, 0, "", fmt.Sprintf("is not YAML that can be read: %v", r))
			ok = false
		}
	}()
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	tokens := lexer.Tokenize(text)
	if !d.soundTokens(tokens) {
		return false
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.brokenYAML(err)
		return false
	}
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil {
			bodies = append(bodies, doc.Body)
		}
	}
	switch {
	case len(bodies) == 0:
		d.add(1, 1, "", "is empty")
		return false
	case len(bodies) > 1:
		at := start(bodies[1])
		d.add(at.line, at.col, "", "holds a second document")
		return false
	}
	return d.walk(bodies[0], 0)
}

// soundTokens refuses what we do not want and what would make the parser,
// which is recursive, run deep.
func (d *Document) soundTokens(tokens token.Tokens) bool {
	ok := true
	flow := 0
	var columns []int // of the block collections around a token
	for _, t := range tokens {
		if t.Position == nil {
			continue
		}
		line, col := uint32(t.Position.Line), uint32(t.Position.Column)
		refuse := func(what string) {
			d.add(line, col, "", what)
			ok = false
		}
		switch t.Type {
		case token.AnchorType:
			refuse("anchors (&) are not allowed")
		case token.AliasType:
			refuse("aliases (*) are not allowed; quote a text that begins with *")
		case token.MergeKeyType:
			refuse("merge keys (<<) are not allowed")
		case token.TagType:
			refuse("tags (!) are not allowed; quote a text that begins with !")
		case token.DirectiveType:
			refuse("directives (%) are not allowed")
		case token.InvalidType:
			refuse("is not YAML: " + t.Error)
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		}
		if flow <= 0 && t.Type != token.CommentType && t.Type != token.MappingValueType {
			for len(columns) > 0 && columns[len(columns)-1] >= t.Position.Column {
				columns = columns[:len(columns)-1]
			}
			if first := t.Prev == nil || t.Prev.Position.Line != t.Position.Line; first || t.Prev.Type == token.SequenceEntryType || t.Prev.Type == token.MappingKeyType {
				columns = append(columns, t.Position.Column)
			}
		}
		if flow+len(columns) > 2*MaxDepth {
			d.add(line, col, "", "is nested deeper than "+strconv.Itoa(MaxDepth))
			return false
		}
	}
	return ok
}

func (d *Document) brokenYAML(err error) {
	var at interface {
		error
		GetMessage() string
		GetToken() *token.Token
	}
	if errors.As(err, &at) && at.GetToken() != nil && at.GetToken().Position != nil {
		p := at.GetToken().Position
		d.add(uint32(p.Line), uint32(p.Column), "", "is not YAML: "+at.GetMessage())
		return
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	d.add(0, 0, "", "is not YAML: "+text)
}

// walk appends the nodes of n.
func (d *Document) walk(n ast.Node, depth int) bool {
	at := start(n)
	switch n := n.(type) {
	case *ast.MappingNode:
		return d.walkObject(at, n.Values, depth)
	case *ast.MappingValueNode:
		return d.walkObject(at, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		if !d.deeper(at, depth) || !d.push(node{kind: list, line: at.line, col: at.col}) {
			return false
		}
		i := uint32(len(d.nodes) - 1)
		for _, v := range n.Values {
			if !d.walk(v, depth+1) {
				return false
			}
		}
		d.close(i)
		return true
	}
	kind, text, ok := scalar(n)
	if !ok {
		d.add(at.line, at.col, "", fmt.Sprintf("is YAML that is not allowed here (%s)", strings.ToLower(n.Type().String())))
		return false
	}
	if strings.IndexByte(text, 0) >= 0 || !utf8.ValidString(text) {
		d.add(at.line, at.col, "", "contains a NUL or what is not Unicode")
	}
	return d.push(node{kind: kind, text: text, line: at.line, col: at.col})
}

func (d *Document) walkObject(at place, members []*ast.MappingValueNode, depth int) bool {
	if !d.deeper(at, depth) || !d.push(node{kind: object, line: at.line, col: at.col}) {
		return false
	}
	i := uint32(len(d.nodes) - 1)
	for _, m := range members {
		at := start(m.Key)
		kind, text, ok := scalar(m.Key)
		if !ok {
			d.add(at.line, at.col, "", "is not allowed as the name of a member")
			return false
		}
		if kind != str {
			d.add(at.line, at.col, "", fmt.Sprintf("the name %s reads as %v; quote it", shown(text), kind))
		}
		if !d.push(node{kind: name, text: text, line: at.line, col: at.col}) || !d.walk(m.Value, depth+1) {
			return false
		}
	}
	d.close(i)
	return true
}

func (d *Document) deeper(at place, depth int) bool {
	if depth < MaxDepth {
		return true
	}
	d.add(at.line, at.col, "", "is nested deeper than "+strconv.Itoa(MaxDepth))
	return false
}

type place struct{ line, col uint32 }

// start says where n begins. A block mapping's own token is the colon behind
// its first name.
func start(n ast.Node) place {
	switch m := n.(type) {
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 {
			return start(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return start(m.Key)
	}
	t := n.GetToken()
	if t == nil || t.Position == nil {
		return place{}
	}
	return place{uint32(t.Position.Line), uint32(t.Position.Column)}
}

// scalar says what a scalar means. Words that only old YAML takes for
// booleans (yes, no, on, off) are texts.
func scalar(n ast.Node) (kind, string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return str, n.Value, true
	case *ast.LiteralNode:
		return str, n.Value.Value, true
	case *ast.NullNode:
		return null, "null", true
	case *ast.BoolNode:
		if n.Token.Value == "true" || n.Token.Value == "false" {
			return boolean, n.Token.Value, true
		}
		return str, n.Token.Value, true // True, TRUE: a text, and no boolean field takes it
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		text := strings.TrimSpace(n.GetToken().Value)
		if jsonNumber(text) {
			return number, text, true
		}
		return oddNumber, text, true
	}
	return 0, "", false
}

// jsonNumber reports whether JSON would write a number so.
func jsonNumber(s string) bool {
	digits := func() bool {
		n := len(s)
		s = strings.TrimLeft(s, "0123456789")
		return len(s) < n
	}
	s = strings.TrimPrefix(s, "-")
	if strings.HasPrefix(s, "0") {
		s = s[1:]
	} else if !digits() {
		return false
	}
	if rest, ok := strings.CutPrefix(s, "."); ok {
		if s = rest; !digits() {
			return false
		}
	}
	if s != "" && (s[0] == 'e' || s[0] == 'E') {
		s = s[1:]
		if s != "" && (s[0] == '+' || s[0] == '-') {
			s = s[1:]
		}
		if !digits() {
			return false
		}
	}
	return s == ""
}
