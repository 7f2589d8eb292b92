package message

import "felhom.eu/hub/internal/hub"

var germanPhrases = map[hub.EventType]phrase{
	hub.HostStale: {
		title:   "Host meldet sich nicht",
		subject: "{host} meldet sich[ seit {silence}] nicht",
		lead:    "{host} hat sich[ seit {silence}] nicht gemeldet. Vielleicht ist das Gerät ausgeschaltet, vom Netz getrennt, oder der Agent läuft nicht mehr.",
		next:    "Prüfen Sie, ob der Host läuft und ins Internet kommt.",
	},
	hub.HostDown: {
		title:   "Host ausgefallen",
		subject: "{host} ist ausgefallen: kein Bericht[ seit {silence}]",
		lead:    "{host} hat sich[ seit {silence}] nicht gemeldet und gilt als ausgefallen.",
		next:    "Prüfen Sie Strom und Netzwerk des Hosts, danach den Agenten.",
	},
	hub.HostRecovered: {
		title:   "Host wieder da",
		subject: "{host} meldet sich wieder",
		lead:    "{host} meldet sich[ nach {silence}] wieder.",
		next:    "Nichts. Wenn die Ursache unklar ist, hilft das Protokoll des Hosts aus dieser Zeit.",
	},
	hub.HostNeverReported: {
		title:   "Host hat sich nie gemeldet",
		subject: "{host} hat sich noch nie gemeldet",
		lead:    "{host} ist eingetragen, aber der erste Bericht ist bis zum vorgesehenen Zeitpunkt nicht eingetroffen.",
		next:    "Prüfen Sie, ob der Agent mit dem Schlüssel dieses Hosts installiert ist, oder nehmen Sie den Host außer Betrieb.",
	},
	hub.HostFlapping: {
		title:   "Host unzuverlässig",
		subject: "{host} verstummt immer wieder",
		lead:    "{host} verstummt immer wieder und kommt zurück. Einzelne Aussetzer werden nicht mehr gemeldet, bis Ruhe einkehrt; bleibt der Host weg, erfahren Sie es.",
		next:    "Prüfen Sie die Netzwerkverbindung des Hosts und ob der Agent ständig neu startet oder zu selten läuft.",
	},
	hub.MassSilence: {
		title:   "Viele Hosts verstummt",
		subject: "{hosts} gleichzeitig verstummt",
		lead:    "{hosts} sind innerhalb kurzer Zeit verstummt. Wahrscheinlich gibt es eine gemeinsame Ursache; sie werden nicht einzeln gemeldet.",
		next:    "Suchen Sie nach dem, was sie verbindet: Standort, Strom, Internetanschluss. Findet sich nichts, prüfen Sie den Hub selbst.",
	},
	hub.HubSwitchHeld: {
		title:   "Überwachung ausgesetzt",
		subject: "Der Hub kann zurzeit nicht urteilen",
		lead:    "Der Hub hält sein Urteil seit einiger Zeit zurück, weil seine Daten nicht verlässlich sind. Solange gilt kein Host als verstummt.",
		next:    "Sehen Sie sich hub status und das Protokoll des Hubs an: Meist antwortet ClickHouse nicht oder ist im Rückstand.",
	},

	hub.ControllerStale: {
		title:   "Controller meldet sich nicht",
		subject: "{it}: Der Controller meldet sich[ seit {silence}] nicht",
		lead:    "Der Controller in {it} hat sich[ seit {silence}] nicht gemeldet, der Host dagegen schon.",
		next:    "Prüfen Sie, ob der Gast läuft und der Controller gestartet ist.",
	},
	hub.ControllerDown: {
		title:   "Controller ausgefallen",
		subject: "{it}: Der Controller ist ausgefallen, kein Bericht[ seit {silence}]",
		lead:    "Der Controller in {it} hat sich[ seit {silence}] nicht gemeldet und gilt als ausgefallen.",
		next:    "Prüfen Sie den Gast und seine Konsole, danach den Controller.",
	},
	hub.ControllerRecovered: {
		title:   "Controller wieder da",
		subject: "{it}: Der Controller meldet sich wieder",
		lead:    "Der Controller in {it} meldet sich[ nach {silence}] wieder.",
		next:    "Nichts. Wenn die Ursache unklar ist, hilft das Protokoll des Gasts aus dieser Zeit.",
	},
	hub.ControllerFlapping: {
		title:   "Controller unzuverlässig",
		subject: "{it}: Der Controller verstummt immer wieder",
		lead:    "Der Controller in {it} verstummt immer wieder und kommt zurück. Einzelne Aussetzer werden nicht mehr gemeldet, bis Ruhe einkehrt.",
		next:    "Prüfen Sie, ob dem Gast der Arbeitsspeicher ausgeht oder der Controller ständig neu startet.",
	},

	hub.BackupDeadline.Overdue(): {
		title:   "Sicherung überfällig",
		subject: "{it}: Sicherung überfällig",
		lead:    "Von {it} gibt es[ seit {silence}] keine erfolgreiche Sicherung.",
		next:    "Sehen Sie sich den letzten Sicherungsauftrag an und prüfen Sie, ob auf dem Speicher noch Platz ist.",
	},
	hub.BackupDeadline.Met(): {
		title:   "Sicherung wieder gelungen",
		subject: "{it} ist wieder gesichert",
		lead:    "Die Sicherung von {it} ist[ nach {silence}] wieder gelungen.",
		next:    "Nichts.",
	},
	hub.RestoreTestDeadline.Overdue(): {
		title:   "Wiederherstellungstest überfällig",
		subject: "{it}: Wiederherstellungstest überfällig",
		lead:    "Für {it} gibt es[ seit {silence}] keinen erfolgreichen Wiederherstellungstest. Ob sich die Sicherungen zurückspielen lassen, ist nicht bekannt.",
		next:    "Starten Sie einen Wiederherstellungstest und klären Sie, warum der letzte misslungen ist oder nicht lief.",
	},
	hub.RestoreTestDeadline.Met(): {
		title:   "Wiederherstellungstest wieder gelungen",
		subject: "{it}: Wiederherstellungstest wieder gelungen",
		lead:    "Der Wiederherstellungstest von {it} ist[ nach {silence}] wieder gelungen.",
		next:    "Nichts.",
	},
	hub.PBSVerifyDeadline.Overdue(): {
		title:   "Prüfung der Sicherungen überfällig",
		subject: "{it}: Prüfung der Sicherungen überfällig",
		lead:    "Die Sicherungen von {it} wurden[ seit {silence}] nicht mehr erfolgreich auf dem Backup-Server geprüft.",
		next:    "Sehen Sie sich den Prüfauftrag auf dem Proxmox Backup Server an.",
	},
	hub.PBSVerifyDeadline.Met(): {
		title:   "Sicherungen wieder geprüft",
		subject: "{it}: Sicherungen wieder geprüft",
		lead:    "Die Sicherungen von {it} wurden[ nach {silence}] wieder erfolgreich geprüft.",
		next:    "Nichts.",
	},

	hub.FleetRejected: {
		title:   "Commit der Flotte abgelehnt",
		subject: "Ein Commit im Flotten-Repository wurde abgelehnt",
		lead:    "Der neueste Commit im Flotten-Repository wurde nicht übernommen. Der Hub arbeitet mit dem letzten guten Stand weiter.",
		next:    "Beheben Sie den Fehler mit einem weiteren Commit; hub fleet validate zeigt alle Fehler.",
	},
	hub.FleetRewound: {
		title:   "Flotte zurückgesetzt",
		subject: "Das Flotten-Repository wurde zurückgesetzt",
		lead:    "Der neueste Commit im Flotten-Repository stammt nicht vom gültigen Stand ab. Der Hub arbeitet mit dem letzten guten Stand weiter.",
		next:    "Klären Sie, wer ihn hochgeladen hat. Ist es Absicht: hub fleet accept.",
	},
	hub.FleetHeld: {
		title:   "Commit der Flotte angehalten",
		subject: "Ein Commit, der viele Hosts entfernt, wurde angehalten",
		lead:    "Der neueste Commit im Flotten-Repository entfernt mehr Hosts, als erlaubt ist. Der Hub arbeitet mit dem letzten guten Stand weiter.",
		next:    "Ist es Absicht: guards.allowRemoval in fleet.yaml erhöhen oder hub fleet accept.",
	},
	hub.FleetFrozen: {
		title:   "Flotte steht still",
		subject: "Das Flotten-Repository antwortet nicht oder steht still",
		lead:    "Der Hub hat länger als erlaubt nichts Neues aus dem Flotten-Repository gesehen. Geänderte Schlüssel und Hosts kommen nicht an.",
		next:    "Prüfen Sie den Git-Server und den Zugang des Hubs; hub status zeigt, was er geantwortet hat.",
	},
	hub.HostFileRejected: {
		title:   "Datei eines Hosts abgelehnt",
		subject: "Die Datei von {host} ist fehlerhaft",
		lead:    "Die Datei von {host} im Flotten-Repository ist nicht zu gebrauchen. Alle anderen gelten.",
		next:    "Beheben Sie den Fehler in der Datei; hub fleet validate zeigt ihn.",
	},

	hub.ClickHouseAway: {
		title:   "ClickHouse nicht erreichbar",
		subject: "ClickHouse antwortet nicht",
		lead:    "Der Hub erreicht ClickHouse nicht. Die Berichte liegen so lange im Zwischenspeicher des Hubs; keiner geht verloren.",
		next:    "Prüfen Sie den ClickHouse-Server und den Weg dorthin.",
	},
	hub.SpoolHigh: {
		title:   "Zwischenspeicher fast voll",
		subject: "Der Zwischenspeicher des Hubs ist fast voll",
		lead:    "Der Zwischenspeicher des Hubs ist fast voll. Ist er voll, werden Berichte abgewiesen, bis ClickHouse wieder welche übernommen hat.",
		next:    "Prüfen Sie, ob ClickHouse Daten annimmt und wie viel Platz auf der Platte des Hubs ist.",
	},
}

var germanControllers = phrase{
	subject: "{it}: {type}",
	lead:    "Der Controller in {it} meldet: {type}.",
	next:    "Lesen Sie, was er meldet, und sehen Sie nach dem Gast.",
}

// germanTitles are of the types that controllers send by default.
var germanTitles = map[hub.EventType]string{
	"backup_started": "Sicherung begonnen", "backup_succeeded": "Sicherung gelungen", "backup_failed": "Sicherung fehlgeschlagen",
	"restore_succeeded": "Wiederherstellung gelungen", "restore_failed": "Wiederherstellung fehlgeschlagen",
	"update_available": "Update verfügbar", "update_started": "Update begonnen", "update_succeeded": "Update gelungen", "update_failed": "Update fehlgeschlagen",
	"reboot_required": "Neustart nötig",
	"app_installed":   "App installiert", "app_removed": "App entfernt", "app_started": "App gestartet", "app_stopped": "App beendet",
	"app_failed": "App ausgefallen", "app_recovered": "App läuft wieder",
	"login_failed": "Anmeldung fehlgeschlagen", "login_blocked": "Anmeldung gesperrt",
	"certificate_expiring": "Zertifikat läuft bald ab", "certificate_expired": "Zertifikat abgelaufen",
	"security_advisory": "Sicherheitshinweis",
	"disk_filling":      "Festplatte füllt sich", "disk_full": "Festplatte voll", "disk_recovered": "Festplatte hat wieder Platz", "disk_failing": "Festplatte fällt aus",
	"storage_unavailable": "Speicher nicht verfügbar", "storage_available": "Speicher wieder verfügbar",
}
