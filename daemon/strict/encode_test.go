package strict_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"batchwarden/daemon/strict"
)

// TestJSON: what is written as JSON says what was read, in the order in which it stood.
func TestJSON(t *testing.T) {
	const yaml = "z: [a, 'b\"\\', {}]\na: {y: 1.50, x: true, \"é <&>\": -2}\nodd: 0x1F\nempty: []\nlong: |\n  two\n  lines\n"
	const want = `{"z":["a","b\"\\",{}],"a":{"y":1.50,"x":true,"é <&>":-2},"odd":"0x1F","empty":[],"long":"two\nlines\n"}`
	d, err := strict.Parse("d.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	got := d.JSON()
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	again, err := strict.Parse("d.json", got)
	if err != nil || string(again.JSON()) != want {
		t.Errorf("read again: got %v %v, want the same", again, err)
	}
	const text = ` { "a" : [ 1 , "\u00e9\n\ud83d\ude00" ] , "b" : null , "x_n" : { } } `
	d, err = strict.Parse("d.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var before, after any
	if err := json.Unmarshal([]byte(text), &before); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(d.JSON(), &after); err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("got %v %v, want %v", after, err, before)
	}
}
