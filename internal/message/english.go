package message

import "felhom.eu/hub/internal/hub"

var englishPhrases = map[hub.EventType]phrase{
	hub.HostStale: {
		title:   "host silent",
		subject: "{host}: no report[ for {silence}]",
		lead:    "{host} has not reported[ for {silence}]. It may be switched off or cut off, or its agent has stopped.",
		next:    "Check that the host runs and reaches the internet.",
	},
	hub.HostDown: {
		title:   "host down",
		subject: "{host} is down: no report[ for {silence}]",
		lead:    "{host} has not reported[ for {silence}] and counts as down.",
		next:    "Check power and network of the host, then its agent.",
	},
	hub.HostRecovered: {
		title:   "host back",
		subject: "{host} reports again",
		lead:    "{host} reports again[ after {silence} of silence].",
		next:    "Nothing. If you do not know the cause, look at the host's log of that time.",
	},
	hub.HostNeverReported: {
		title:   "host never reported",
		subject: "{host} has never reported",
		lead:    "{host} is enrolled, and its first report had not come when it was due.",
		next:    "Check that the agent is installed with the key of this host, or retire the host.",
	},
	hub.HostFlapping: {
		title:   "host unsteady",
		subject: "{host} falls silent again and again",
		lead:    "{host} falls silent and comes back again and again. Single silences are not told until it is steady; you will hear if it stays away.",
		next:    "Check the host's network, and whether its agent is restarted or runs too rarely.",
	},
	hub.MassSilence: {
		title:   "many hosts silent",
		subject: "{hosts} silent at once",
		lead:    "{hosts} fell silent within a short time. They probably have one cause in common; they are not told one by one.",
		next:    "Look for what they share: site, power, internet line. If there is nothing, look at the hub itself.",
	},
	hub.HubSwitchHeld: {
		title:   "switch held back",
		subject: "The hub cannot judge silence at the moment",
		lead:    "The hub has held its judgement back for a while, because its evidence cannot be relied on. No host is called silent until it can.",
		next:    "See hub status and the hub's log: mostly ClickHouse does not answer or is behind.",
	},

	hub.ControllerStale: {
		title:   "controller silent",
		subject: "{it}: no report of the controller[ for {silence}]",
		lead:    "The controller in {it} has not reported[ for {silence}], while its host does.",
		next:    "Check that the guest runs and its controller is started.",
	},
	hub.ControllerDown: {
		title:   "controller down",
		subject: "{it}: the controller is down, no report[ for {silence}]",
		lead:    "The controller in {it} has not reported[ for {silence}] and counts as down.",
		next:    "Check the guest and its console, then its controller.",
	},
	hub.ControllerRecovered: {
		title:   "controller back",
		subject: "{it}: the controller reports again",
		lead:    "The controller in {it} reports again[ after {silence} of silence].",
		next:    "Nothing. If you do not know the cause, look at the guest's log of that time.",
	},
	hub.ControllerFlapping: {
		title:   "controller unsteady",
		subject: "{it}: the controller falls silent again and again",
		lead:    "The controller in {it} falls silent and comes back again and again. Single silences are not told until it is steady.",
		next:    "Check whether the guest is short of memory, or its controller is restarted.",
	},

	hub.BackupDeadline.Overdue(): {
		title:   "backup overdue",
		subject: "{it}: backup overdue",
		lead:    "{it} has had no successful backup[ for {silence}].",
		next:    "Look at the last backup job of the guest, and whether the storage has room.",
	},
	hub.BackupDeadline.Met(): {
		title:   "backup done again",
		subject: "{it} has a backup again",
		lead:    "A backup of {it} succeeded again[ after {silence}].",
		next:    "Nothing.",
	},
	hub.RestoreTestDeadline.Overdue(): {
		title:   "restore test overdue",
		subject: "{it}: restore test overdue",
		lead:    "{it} has had no successful restore test[ for {silence}]. Whether its backups can be restored is not known.",
		next:    "Run a restore test, and look at why the last one failed or did not start.",
	},
	hub.RestoreTestDeadline.Met(): {
		title:   "restore test done again",
		subject: "{it} passed a restore test again",
		lead:    "A restore test of {it} succeeded again[ after {silence}].",
		next:    "Nothing.",
	},
	hub.PBSVerifyDeadline.Overdue(): {
		title:   "backup verification overdue",
		subject: "{it}: verification of the backups overdue",
		lead:    "The backups of {it} have not been verified successfully on the backup server[ for {silence}].",
		next:    "Look at the verify job on the Proxmox Backup Server.",
	},
	hub.PBSVerifyDeadline.Met(): {
		title:   "backups verified again",
		subject: "{it}: the backups are verified again",
		lead:    "The backups of {it} were verified successfully again[ after {silence}].",
		next:    "Nothing.",
	},

	hub.FleetRejected: {
		title:   "fleet commit rejected",
		subject: "A commit of the fleet repository is rejected",
		lead:    "The newest commit of the fleet repository was not applied. The hub goes on with the last good fleet.",
		next:    "Mend it with another commit; hub fleet validate shows every mistake.",
	},
	hub.FleetRewound: {
		title:   "fleet rewound",
		subject: "The fleet repository was rewound",
		lead:    "The head of the fleet repository does not descend from the commit in force. The hub goes on with the last good fleet.",
		next:    "Find out who pushed it. If it is meant: hub fleet accept.",
	},
	hub.FleetHeld: {
		title:   "fleet commit held",
		subject: "A commit that removes many hosts is held back",
		lead:    "The newest commit of the fleet repository removes more hosts than its guards allow. The hub goes on with the last good fleet.",
		next:    "If it is meant: raise guards.allowRemoval in fleet.yaml, or hub fleet accept.",
	},
	hub.FleetFrozen: {
		title:   "fleet frozen",
		subject: "The fleet repository does not move or does not answer",
		lead:    "The hub has seen nothing new of the fleet repository for longer than is allowed. Changes of keys and hosts do not arrive.",
		next:    "Check the git server and the hub's access to it; hub status says what it answered.",
	},
	hub.HostFileRejected: {
		title:   "host file rejected",
		subject: "The file of {host} has a mistake",
		lead:    "The file of {host} in the fleet repository cannot be used. All others are in force.",
		next:    "Mend the file; hub fleet validate shows the mistake.",
	},

	hub.ClickHouseAway: {
		title:   "ClickHouse away",
		subject: "ClickHouse does not answer",
		lead:    "The hub does not reach ClickHouse. Reports are kept in the spool meanwhile; none is lost.",
		next:    "Check the ClickHouse server and the way to it.",
	},
	hub.SpoolHigh: {
		title:   "spool nearly full",
		subject: "The hub's spool is nearly full",
		lead:    "The hub's spool is nearly full. When it is full, reports are refused until ClickHouse has taken some.",
		next:    "Check that ClickHouse takes rows, and the room on the hub's disk.",
	},
}

var englishControllers = phrase{
	subject: "{it}: {type}",
	lead:    "The controller in {it} says: {type}.",
	next:    "See what it says, and look at the guest.",
}

// englishTitles are of the types that controllers send by default.
var englishTitles = map[hub.EventType]string{
	"backup_started": "backup started", "backup_succeeded": "backup succeeded", "backup_failed": "backup failed",
	"restore_succeeded": "restore succeeded", "restore_failed": "restore failed",
	"update_available": "update available", "update_started": "update started", "update_succeeded": "update succeeded", "update_failed": "update failed",
	"reboot_required": "restart needed",
	"app_installed":   "app installed", "app_removed": "app removed", "app_started": "app started", "app_stopped": "app stopped",
	"app_failed": "app failed", "app_recovered": "app runs again",
	"login_failed": "failed login", "login_blocked": "login blocked",
	"certificate_expiring": "certificate expires soon", "certificate_expired": "certificate expired",
	"security_advisory": "security advisory",
	"disk_filling":      "disk is filling up", "disk_full": "disk full", "disk_recovered": "disk has room again", "disk_failing": "disk is failing",
	"storage_unavailable": "storage unavailable", "storage_available": "storage available again",
}
