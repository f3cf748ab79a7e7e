package broker

import (
	"errors"
	"testing"

	"batchwarden/platform/peer"
)

func TestAskedFor(t *testing.T) {
	const pay = "\x00adf9d86b6eda275e/unit/pay.service/payroll"
	at := func(name, unit string, systemd bool) *peer.Attested {
		return &peer.Attested{Name: name, Unit: unit, Systemd: systemd}
	}
	for _, c := range []struct {
		name string
		at   *peer.Attested
		want asked // none: refused
		sure bool
	}{
		{"systemd", at(pay, "pay.service", true), asked{"pay.service", "payroll"}, true},
		{"an instance", at("\x000/unit/pay@db\\x2d01.service/a.b_c-9", "pay@db\\x2d01.service", true), asked{"pay@db\\x2d01.service", "a.b_c-9"}, true},
		{"where no systemd runs", at(pay, "", false), asked{"pay.service", "payroll"}, false},
		{"in the unit, where no systemd is seen", at(pay, "pay.service", false), asked{"pay.service", "payroll"}, false},
		{"another unit", at(pay, "x.service", true), asked{}, false},
		{"another unit, where no systemd is seen", at(pay, "x.service", false), asked{}, false},
		{"no unit", at(pay, "", true), asked{}, false},
		{"another user", &peer.Attested{Peer: peer.Peer{UID: 1}, Name: pay, Unit: "pay.service", Systemd: true}, asked{}, false},
		{"no name", at("", "pay.service", true), asked{}, false},
		{"a path", at("adf9/unit/pay.service/payroll", "pay.service", true), asked{}, false},
		{"no number", at("\x00/unit/pay.service/payroll", "pay.service", true), asked{}, false},
		{"17 digits", at("\x00adf9d86b6eda275e0/unit/pay.service/payroll", "pay.service", true), asked{}, false},
		{"capital digits", at("\x00ADF9/unit/pay.service/payroll", "pay.service", true), asked{}, false},
		{"two NULs", at("\x00\x00adf9/unit/pay.service/payroll", "pay.service", true), asked{}, false},
		{"a template", at("\x00adf9/unit/pay/payroll", "pay", true), asked{}, false},
		{"no unit's name", at("\x00adf9/unit//payroll", "", true), asked{}, false},
		{"no id", at("\x00adf9/unit/pay.service", "pay.service", true), asked{}, false},
		{"an empty id", at("\x00adf9/unit/pay.service/", "pay.service", true), asked{}, false},
		{"an id with a slash", at(pay+"/x", "pay.service", true), asked{}, false},
		{"a NUL behind it", at(pay+"\x00", "pay.service", true), asked{}, false},
		{"not UTF-8", at(pay+"\xff", "pay.service", true), asked{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, sure, err := askedFor(c.at, nil)
			if (err == nil) != (c.want != asked{}) || err == nil && got != c.want || sure != c.sure {
				t.Errorf("got %+v, %v, %v; want %+v, %v", got, sure, err, c.want, c.sure)
			}
			// Whatever it looks like: what was not attested is not believed.
			if _, sure, err := askedFor(c.at, errors.New("gone")); sure || err == nil {
				t.Error("believed although it was not attested")
			}
		})
	}
}
