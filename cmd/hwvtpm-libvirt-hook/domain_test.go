// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
)

const uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"

// domainXML is a domain with these things in its metadata.
func domainXML(metadata string) string {
	return "<domain type='kvm' id='1'><name>vm1</name><uuid>" + uuid + "</uuid><metadata>" + metadata +
		"</metadata><devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices></domain>"
}

func TestReadRequest(t *testing.T) {
	ask := func(attrs string) string { return "<h:vtpm xmlns:h='urn:hwvtpm:libvirt:1' " + attrs + "/>" }
	virtio, external := &request{uuid, "vm1", faceVirtio}, &request{uuid, "vm1", faceEmulator}
	for name, tc := range map[string]struct {
		xml  string
		want *request
		bad  string // part of the error
	}{
		"asks":               {domainXML(ask("slot='vm1'")), virtio, ""},
		"default namespace":  {domainXML("<vtpm xmlns='urn:hwvtpm:libvirt:1' slot='vm1' face='virtio'/>"), virtio, ""},
		"emulator":           {domainXML(ask("slot='vm1' face='emulator'")), external, ""},
		"beside others":      {domainXML("<o:os xmlns:o='x:y'><vtpm/></o:os>" + ask("slot='vm1'")), virtio, ""},
		"does not":           {domainXML(""), nil, ""},
		"other namespace":    {domainXML("<h:vtpm xmlns:h='urn:hwvtpm:libvirt:2' slot='vm1'/>"), nil, ""},
		"elsewhere":          {"<domain><uuid>" + uuid + "</uuid><devices>" + ask("slot='vm1'") + "</devices></domain>", nil, ""},
		"deeper":             {domainXML("<o:os xmlns:o='x:y'>" + ask("slot='vm1'") + "</o:os>"), nil, ""},
		"nothing":            {"", nil, ""},
		"no XML, not ours":   {"<domain", nil, ""},
		"no XML, ours":       {"<domain>" + ask("slot='vm1'"), nil, "XML"},
		"too long, not ours": {strings.Repeat(" ", maxDomain+2), nil, ""},
		"too long":           {domainXML(ask("slot='vm1'")) + strings.Repeat(" ", maxDomain), nil, "more than"},
		"two":                {domainXML(ask("slot='vm1'") + ask("slot='vm2'")), nil, "several"},
		"no slot":            {domainXML(ask("")), nil, `slot ""`},
		"path as slot":       {domainXML(ask("slot='../vm2'")), nil, `slot "../vm2"`},
		"flag as slot":       {domainXML(ask("slot='--help'")), nil, `slot "--help"`},
		"face":               {domainXML(ask("slot='vm1' face='both'")), nil, `face "both"`},
		"misspelt":           {domainXML(ask("slots='vm1'")), nil, `attribute "slots"`},
		"no uuid":            {strings.Replace(domainXML(ask("slot='vm1'")), uuid, "", 1), nil, "uuid"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readRequest(strings.NewReader(tc.xml))
			switch {
			case tc.bad != "":
				if err == nil || !strings.Contains(err.Error(), tc.bad) {
					t.Errorf("error %v, want one with %q", err, tc.bad)
				}
			case err != nil:
				t.Error(err)
			case (got == nil) != (tc.want == nil) || got != nil && *got != *tc.want:
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// FuzzReadRequest: whatever a domain has in its XML, what comes out of it can be
// part of a path and of a command line.
func FuzzReadRequest(f *testing.F) {
	f.Add(domainXML("<h:vtpm xmlns:h='urn:hwvtpm:libvirt:1' slot='vm1' face='emulator'/>"))
	f.Add(domainXML("<vtpm xmlns='urn:hwvtpm:libvirt:1' slot='../../etc'/>"))
	f.Add("<domain>urn:hwvtpm:libvirt:1")
	f.Fuzz(func(t *testing.T, xml string) {
		req, err := readRequest(strings.NewReader(xml))
		if err != nil || req == nil {
			return
		}
		if req.uuid == "" || strings.ContainsAny(req.slot, "/ \x00") || strings.HasPrefix(req.slot, "-") ||
			strings.HasPrefix(req.slot, ".") || req.face != faceVirtio && req.face != faceEmulator {
			t.Errorf("%q: %+v", xml, req)
		}
	})
}

// TestPrintedXMLIsUnderstood: what xml prints, the hook acts on.
func TestPrintedXMLIsUnderstood(t *testing.T) {
	for _, face := range []string{faceVirtio, faceEmulator} {
		c, err := parseArgs([]string{"xml", "--slot", "vm1", "--face", face}, &bytes.Buffer{})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := c.printXML(&out); err != nil {
			t.Fatal(err)
		}
		xml := strings.Replace(out.String(), "<metadata>", "<uuid>"+uuid+"</uuid><metadata>", 1)
		got, err := readRequest(strings.NewReader(xml))
		if err != nil || got == nil || *got != (request{uuid, "vm1", face}) {
			t.Errorf("%s: %+v, %v", xml, got, err)
		}
		if !strings.Contains(xml, "/run/hwvtpm/vm/vm1/vtpm.sock") {
			t.Errorf("the backend's socket is not in %s", xml)
		}
	}
}
