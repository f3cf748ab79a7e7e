package automic

// A row is one line of a profile (AU1), its columns as they are compared.
type row struct {
	name, host, login filter
	more              *more // the columns that few rows have; nil: none restricts
	kinds             kinds
	rights            rights
	group             uint8 // 1 to 9, 0 is NOT
	index             uint32
}

// more are the columns for transfers and files. Filters of file names
// exist twice: as they are, and as Windows compares (AU14).
type more struct {
	hostDst, loginDst              filter
	fileSrc, fileDst               filter
	fileSrcWindows, fileDstWindows filter
}

// matches reports whether all columns match (AU9); rights are not looked at.
func (r *row) matches(q *query) bool {
	if r.kinds&q.kind.bit() == 0 {
		return false
	}
	if q.kind == folder {
		if !r.name.matchesFolder(q.name) {
			return false
		}
	} else if !r.name.matchesName(q.name) {
		return false
	}
	return r.host.matches(q.host) && r.login.matches(q.login) && (r.more == nil || r.more.matches(q))
}

func (m *more) matches(q *query) bool {
	src, dst := m.fileSrc, m.fileDst
	if q.srcWindows {
		src = m.fileSrcWindows
	}
	if q.dstWindows {
		dst = m.fileDstWindows
	}
	return m.hostDst.matches(q.hostDst) && m.loginDst.matches(q.loginDst) && src.matches(q.fileSrc) && dst.matches(q.fileDst)
}

// A profile is the rows of one user or user group, with two indexes.
type profile struct {
	place  string // "users.JDOE/DEPT", "groups.OPS"
	name   string
	rows   []row
	groups uint16                 // bit g: a row has the group g; bit 0: NOT
	byKind [len(typeNames)]uint16 // the same of the rows that cover the type (AU8)
	grants index
	nots   index
	// denials are the reasons of the NOT rows, by row.
	denials map[uint32]string
}
