package fleetfile

import (
	"fmt"
	"path"
	"strings"
	"time"

	"felhom.eu/hub/internal/yamlfile"
)

// APIVersion is the version of the files' form.
const APIVersion = "hub.felhom.eu/v1"

// Names within a fleet folder.
const (
	FleetPath      = "fleet.yaml"
	RecipientsPath = "recipients.txt"
	customersDir   = "customers"
	hostsDir       = "hosts"
	customerFile   = "customer.yaml"
	schemaDir      = "schema"
	ciDir          = "ci"
)

// CustomerPath returns the path of a customer's file.
func CustomerPath(name string) string { return path.Join(customersDir, name, customerFile) }

// HostPath returns the path of a host's file.
func HostPath(customer, id string) string {
	return path.Join(customersDir, customer, hostsDir, id+".yaml")
}

// HostFile is the content of a host's file.
type HostFile struct {
	APIVersion string       `yaml:"apiVersion" required:"true" oneof:"hub.felhom.eu/v1" doc:"Version of this form."`
	Kind       string       `yaml:"kind" required:"true" oneof:"Host"`
	Metadata   HostMetadata `yaml:"metadata" required:"true"`
	Spec       HostSpec     `yaml:"spec" required:"true"`
}

// HostMetadata says which host a file is about.
type HostMetadata struct {
	Name     string            `yaml:"name" required:"true" pattern:"^[a-z0-9][a-z0-9.-]{0,127}$" doc:"The host's id, as the file is named."`
	Customer string            `yaml:"customer" required:"true" pattern:"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" doc:"Whose host it is, as the folder is named."`
	Labels   map[string]string `yaml:"labels,omitempty,flow" doc:"Free words for analysts: site: berlin."`
}

// HostSpec is what an operator wants of a host.
type HostSpec struct {
	DisplayName string        `yaml:"displayName,omitempty" doc:"The name people read."`
	State       string        `yaml:"state,omitempty" oneof:"active|paused|retired" doc:"active (the default); paused: reports are taken, nobody is alarmed; retired: the host's keys are unknown."`
	Retired     *Retirement   `yaml:"retired,omitempty" doc:"Why a retired host was let go; written by hub fleet retire."`
	EnrollBy    *time.Time    `yaml:"enrollBy,omitempty" doc:"When the first report is due: if none has come by then, host_never_reported is raised. Left out: never."`
	Monitor     *Monitor      `yaml:"monitor,omitempty" doc:"Lengths of silence; what is left out is as on the customer, the fleet, the hub."`
	Deadlines   *Deadlines    `yaml:"deadlines,omitempty" doc:"What has to succeed again and again for every guest; what is left out is as on the customer, the fleet, and not watched where that says nothing either."`
	Maintenance []Window      `yaml:"maintenance,omitempty" doc:"Windows in which nobody is told of this host; what is still wrong when one closes is told then. Those of the customer and the fleet hold too."`
	Keys        []Key         `yaml:"keys" doc:"The agent's keys. Two may overlap, so that one can be replaced without a gap."`
	Desired     yamlfile.JSON `yaml:"desired,omitempty" doc:"Inert: read, checked and mirrored for analysts, never sent to an agent."`
	DRRecord    yamlfile.JSON `yaml:"drRecord,omitempty" doc:"Inert, as desired."`
}

// Retirement is what people want to know of a host that was let go. The hub
// makes no use of it.
type Retirement struct {
	At     *time.Time `yaml:"at,omitempty" doc:"When it was let go."`
	Reason string     `yaml:"reason" required:"true" doc:"Why, in one line of at most 256 characters."`
}

// CustomerFile is the content of a customer's file.
type CustomerFile struct {
	APIVersion string       `yaml:"apiVersion" required:"true" oneof:"hub.felhom.eu/v1" doc:"Version of this form."`
	Kind       string       `yaml:"kind" required:"true" oneof:"Customer"`
	Metadata   NameOnly     `yaml:"metadata" required:"true"`
	Spec       CustomerSpec `yaml:"spec" required:"true"`
}

// NameOnly is the metadata of what has only a name.
type NameOnly struct {
	Name string `yaml:"name" required:"true" pattern:"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" doc:"Lowercase letters, digits and dashes. A customer's folder is named so."`
}

// CustomerSpec is what an operator wants of a customer.
type CustomerSpec struct {
	DisplayName string     `yaml:"displayName,omitempty" doc:"The name people read."`
	Status      string     `yaml:"status,omitempty" oneof:"active|blocked" doc:"active (the default); blocked: told to the agents, whose reports are still stored."`
	Monitor     *Monitor   `yaml:"monitor,omitempty" doc:"Lengths of silence for all hosts of this customer."`
	Deadlines   *Deadlines `yaml:"deadlines,omitempty" doc:"What has to succeed again and again for every guest of this customer; what is left out is as on the fleet."`
	Maintenance []Window   `yaml:"maintenance,omitempty" doc:"Windows in which nobody is told of this customer's hosts."`
	Notify      []Channel  `yaml:"notify,omitempty" doc:"Channels by which this customer is told of its own events; at most 16. The fleet's are told of them too."`
	Language    string     `yaml:"language,omitempty" oneof:"en|de" doc:"Language of what this customer is told: en (the default) or de."`
	TimeZone    string     `yaml:"timeZone,omitempty" doc:"Zone of the times that this customer is told, by its IANA name: Europe/Berlin. Left out: UTC."`
	Keys        []Key      `yaml:"keys" doc:"Keys of this customer's controllers."`
}

// FleetFile is the content of fleet.yaml.
type FleetFile struct {
	APIVersion string    `yaml:"apiVersion" required:"true" oneof:"hub.felhom.eu/v1" doc:"Version of this form."`
	Kind       string    `yaml:"kind" required:"true" oneof:"Fleet"`
	Metadata   NameOnly  `yaml:"metadata" required:"true"`
	Spec       FleetSpec `yaml:"spec" required:"true"`
}

// FleetSpec is what holds for the whole fleet.
type FleetSpec struct {
	Monitor          *Monitor   `yaml:"monitor,omitempty" doc:"Lengths of silence for all hosts."`
	Deadlines        *Deadlines `yaml:"deadlines,omitempty" doc:"What has to succeed again and again for every guest; what is left out is not watched."`
	Maintenance      []Window   `yaml:"maintenance,omitempty" doc:"Windows in which nobody is told of any host."`
	ControllerEvents []string   `yaml:"controllerEvents,omitempty,flow" pattern:"^[a-z][a-z0-9_]{0,63}$" doc:"The types of events that controllers may send; the hub's own are never taken. Left out: a list of backup, update, app, security and storage events, which README.md has. []: none."`
	Notify           []Channel  `yaml:"notify,omitempty" doc:"Channels by which the operators are told, of every customer's events and the hub's own; at most 16."`
	Language         string     `yaml:"language,omitempty" oneof:"en|de" doc:"Language of what the operators are told: en (the default) or de."`
	TimeZone         string     `yaml:"timeZone,omitempty" doc:"Zone of the times that the operators are told, by its IANA name: Europe/Berlin. Left out: UTC."`
	Outbound         Outbound   `yaml:"outbound,omitempty" doc:"What channels may reach beside public addresses."`
	Keys             []Key      `yaml:"keys" doc:"Global keys: bound to no host, they may enroll hosts."`
	Guards           Guards     `yaml:"guards,omitempty" doc:"What keeps a mistaken commit from harm."`
}

// Guards are limits that a commit has to lift before it may do more.
type Guards struct {
	AllowRemoval int `yaml:"allowRemoval" doc:"How many hosts a commit may remove or retire when these are more than 10 % of all, and at least 3: until this says so, such a commit is held. Put it back to 0 afterwards."`
}

// Monitor holds the lengths of silence.
type Monitor struct {
	StaleAfter time.Duration `yaml:"staleAfter,omitempty" doc:"Silence after which a host is stale: 30m."`
	DownAfter  time.Duration `yaml:"downAfter,omitempty" doc:"Silence after which a host is down: 60m. Longer than staleAfter."`
}

// Key is a sealed key.
type Key struct {
	ID       string     `yaml:"id" required:"true" pattern:"^[a-z0-9][a-z0-9-]{0,31}$" doc:"Unique among the keys of this file."`
	NotAfter *time.Time `yaml:"notAfter,omitempty" doc:"Last instant at which the key is taken. Left out: it does not expire."`
	SealedTo []string   `yaml:"sealedTo,flow" required:"true" pattern:"^[0-9a-f]{16}$" doc:"For every recipient the first 16 hex digits of the SHA-256 of its public string."`
	Sealed   string     `yaml:"sealed" required:"true" doc:"The key, encrypted by age; made by hub fleet enroll and hub fleet key add."`
}

// Render returns the file as it is written for people, with the line by which
// editors find the schema.
func (f HostFile) Render() ([]byte, error) {
	return yamlfile.Marshal(f, "yaml-language-server: $schema=../../../schema/host.json")
}

// Render returns the file as it is written for people.
func (f CustomerFile) Render() ([]byte, error) {
	return yamlfile.Marshal(f, "yaml-language-server: $schema=../../schema/customer.json")
}

// Schemas returns the JSON Schema of each kind by its path in a fleet folder.
func Schemas() map[string][]byte {
	return map[string][]byte{
		schemaDir + "/fleet.json":    yamlfile.Schema("Fleet", FleetFile{}),
		schemaDir + "/customer.json": yamlfile.Schema("Customer", CustomerFile{}),
		schemaDir + "/host.json":     yamlfile.Schema("Host", HostFile{}),
	}
}

// role is what a file is for.
type role uint8

const (
	otherRole role = iota // none of our business
	fleetRole
	recipientsRole
	customerRole
	hostRole
	misplaced
)

// placeOf tells the role of a file from its path; for a misplaced one, with
// where it should be.
func placeOf(name string) (r role, message, hint string) {
	parts := strings.Split(name, "/")
	base := parts[len(parts)-1]
	isYAML := strings.HasSuffix(base, ".yaml") || strings.HasSuffix(base, ".yml")
	switch {
	case name == FleetPath:
		return fleetRole, "", ""
	case name == RecipientsPath:
		return recipientsRole, "", ""
	case parts[0] != customersDir:
		if isYAML && parts[0] != schemaDir && parts[0] != ciDir && !strings.HasPrefix(parts[0], ".") {
			return misplaced, "out of place: the hub would not read this file", "hosts are customers/<customer>/hosts/<id>.yaml"
		}
		return otherRole, "", ""
	case strings.HasPrefix(base, ".git") || strings.HasSuffix(base, ".md"):
		return otherRole, "", ""
	case len(parts) == 3 && base == customerFile:
		return customerRole, "", ""
	case len(parts) == 4 && parts[2] == hostsDir && strings.HasSuffix(base, ".yaml"):
		return hostRole, "", ""
	case len(parts) == 4 && parts[2] == hostsDir && isYAML:
		return misplaced, "out of place: the hub would not read this file", "rename it to " + strings.TrimSuffix(base, ".yml") + ".yaml"
	case len(parts) == 3 && isYAML:
		return misplaced, "out of place: the hub would not read this file",
			fmt.Sprintf("a customer's own file is customer.yaml, its hosts are in %s/", path.Join(customersDir, parts[1], hostsDir))
	default:
		return misplaced, "out of place: the hub would not read this file",
			"here are only customers/<name>/customer.yaml and customers/<name>/hosts/<id>.yaml"
	}
}
