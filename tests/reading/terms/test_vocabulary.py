"""What series are called, by vendors and in hospitals of many languages."""

import time

import pytest

from ich_lstm.reading.terms import vocabulary
from ich_lstm.reading.terms.word_table import TABLE, read_words

PLAIN = """
    Schädel nativ | Kopf o. KM nativ | CCT nativ 5.0 | Schaedel ohne Kontrastmittel | Neurocranium nativ | Kontrastfrei Kopf
    crâne sans injection | Tête SANS IV | Encéphale sans produit de contraste | Crane non injecté | Cérébral C- | sans PDC
    Fosse post 2.5
    cráneo simple | CABEZA SIN CONTRASTE | Cerebro s/c | Cráneo sin CIV | TAC basal | Cerebro antes de contraste
    cranio senza mdc | Encefalo diretto basale | Testa senza MDC | prima del mdc
    Crânio sem contraste | CABEÇA S/ CONTRASTE | Cranio simples
    Hersenen zonder contrast | Schedel blanco | hoofd geen contrast
    Beyin kontrastsız | BEYIN BT KONTRASTSIZ | Kafa nativ
    Głowa bez kontrastu | MOZGOWIE BEZ KONTRASTU | Czaszka przed kontrastem
    TOUBU TANJUN | NAOBU PINGSAO | 頭部単純 | 头部平扫 | 頭部 造影なし
    Head 5.0 Qr40 | HEAD STD | Axial Brain 5mm | 5.0 Hr38 S3 | BRAIN W/O | AX HEAD WO IV | Routine Head 4.8 J30s | HELICAL HEAD
    NON CON HEAD | Non-Enhanced | Head pre contrast | BRAIN, iDose (3) | SOFT TISSUE | THIN BRAIN
    CRANE IV- | CRANE IV - | TDM cérébral IV- | HEAD C- | KM- Schädel | Inj- | crâne non injecté | CEREBRAL SANS INJ
    uten kontrast | uden kontrast | utan kontrast | Hjerne uten iv kontrast | CT Hoved uden kontrast | DT Skalle utan iv kontrast
    før kontrast | Pää natiivi | Pää ilman varjoainetta | Hlava nativně | mozek bez kontrastu | hlava bez KL
    Koponya kontraszt nélkül
    craniu fara contrast | Beyin IV kontrast yok | I.V. kontrastsız kafa | CABEZA SIN MEDIO DE CONTRASTE | CRANEO S/C 5MM
    голова без контраста | Головной мозг нативное | мозг без КУ | Череп бесконтрастное | до контраста
    Εγκέφαλος χωρίς σκιαγραφικό | Κρανίο απλή | رأس بدون صبغة | الدماغ بدون تباين | ראש ללא חומר ניגוד
    두부 비조영 | 뇌 조영 전 | 머리 조영제 없이 | 頭部 造影前 | 头部非增强 | 顱腦平掃 | 头颅未增强 | ﾄｳﾌﾞ単純 | 頭部単純CT
    POST-OP | POST TRAUMA | IV ventricle 2mm | SCHÄDEL_O._KM | Head NCCT 5mm | Brain non enh | Head no inj
"""
CONTRAST = """
    Schädel mit KM | Kopf nach KM | CCT KM | Spätphase | Schädel nativ und KM
    crâne avec injection | Tête INJECTÉE | Cérébral C+ | avec PDC | avec et sans injection | Angioscanner | temps artériel
    CABEZA CON CONTRASTE | Cráneo con CIV | CON Y SIN CONTRASTE | fase venosa | fase tardía | Angio TC
    cranio con mdc | Encefalo dopo MDC | fase arteriosa
    Crânio com contraste | CABEÇA C/ CONTRASTE | sem e com contraste
    Hersenen met contrast | na contrast
    Beyin kontrastlı | BEYIN KONTRASTLI | beyin anjio
    Głowa z kontrastem | po kontraście
    TOUBU ZOUEI | ZENGQIANG | 頭部造影 | 头部增强
    Delayed | CTA 0.6 | CTV | Venogram | WITH CONTRAST | Head W IV | 50 cc
    Circle of Willis | COW 0.6 | TSA | Carotis | Karotiden 1.0 | Hirngefäße | HALSGEFAESSE | Gefässe | temps veineux | VEINEUX 5mm
    INJ | ENH | +C | TETE+C | BRAIN C+ | C/C | CRÂNIO C/C 5MM | CTP | VPCT | CTE head | Bolus Tracking | BolusTracking | SmartPrep
    Smart Prep Series | CareBolus | Premonitoring | Test Bolus | Sure Start | 動脈相 | 頭部CTA | 静脉期 | 脑CTA增强 | 頭部造影3D
    造影
    头部增强5mm | 血管 | 두부 조영 | 조영증강 | 동맥기 | 뇌CTA
    med kontrast | hjerne med iv kontrast | Skalle med kontrast | varjoaine | Pää varjoaineen jälkeen | artärfas | valtimovaihe
    hlava s kontrastem | s KL | tepenná fáze | Koponya kontrasztos | cu contrast | tętnicza | faza żylna
    голова с контрастом | с КУ | артериальная фаза | ВЕНОЗНАЯ ФАЗА | Ангиография | КТА | Εγκέφαλος με σκιαγραφικό | αγγειογραφία
    رأس مع صبغة | دماغ بالصبغة | ראש עם חומר ניגוד | bez a s kontrastem | uten og med kontrast | utan och med kontrast
    sans et avec injection | без и с контрастом | IV- / IV+ | C- ET C+ | KM- KM+ | CRÂNIO S/C E C/C | OMNIPAQUE
"""
BONE = """
    Knochen 1.0 Hr60 | Felsenbein | fenêtre osseuse | OS 0.6 | ROCHERS | ventana ósea | HUESO | Osso | finestra ossea
    janela óssea
    bot 1mm | KEMIK | okno kostne | Kość | KOTSU | 骨 | 骨窗 | Bones | INNER EAR
    Костное окно | кости | luuikkuna | Csont | benfönster | knogle 1mm | 뼈 | οστικό παράθυρο | 头部骨窗
"""
OTHER_PART = """
    HWS nativ | Hals | Thorax | Abdomen | NNH | BWS | Wirbelsäule | Becken | RACHIS CERVICAL | COU | THORAX SANS | Bassin
    cuello | COLUMNA CERVICAL | TÓRAX | ABDOMEN SIMPLE | collo | torace | ADDOME | rachide | PESCOÇO | Coluna | TÓRAX SEM
    nek | buik | BOYUN | TORAKS | szyja | klatka piersiowa | JAMA BRZUSZNA brzuch | KEIBU | KYOUBU | 胸部 | 頸部
    C-SPINE | Sinuses | Lungs 1.0 | CHEST ABD PELVIS
    шея | грудная клетка | ОГК | брюшная полость | Θώρακας | 흉부 | 경추 | 颈椎 | 胸部CT | bryst | břicho | hrudník
    nyaki | الصدر
"""
LOCALIZER = """
    Topogramm | Übersicht | UEBERSICHT | Lokalisator | Repérage | TOPO | localizador | Escanograma | topogramma
    LOCALIZZATORE | overzicht
    skanogram | SCANO | Scout | SURVIEW | Pilot | 定位 | DINGWEI
    Топограмма | обзорная | スカウト | 定位像 | 头部定位 | 위치결정 | τοπόγραμμα | Översikt | oversigt
"""
REPORT = """
    Dosisbericht | Dosisprotokoll | Patientenprotokoll | Patient Protocol | Dose Report | Rapport de dose | Informe de dosis
    Relatório | Referto | DOZ RAPORU | raport | Screen Save | Screen Shots | Exam Summary | Key Images | Befund
"""
MAPS = """
    Jodkarte | Iode | Perfusie | Perfusión | PERFUSIONE | perfuzja | VNC | MIP 10 | MinIP | VRT | 3D | CBF
    Rapid Tmax | Mono 40 keV
    Knochenentfernung | subtraction | Subtraktion
    Zeff | Z-eff | Eff Z | Rho/Z | Rho | CaSupp 25 | Calcium Suppression | VNI | VNCa | VUE | Uric Acid | tMIP | rCBF | rCBV | TTD
    Virtual Non-Contrast | virtual unenhanced | MAT_REMOVED | EFF_ATOMIC_NUM | ELECTRON_DENSITY | MAT_SPECIFIC | Iodine no water
    RAPID | RAPID Results | ASPECTS | e-ASPECTS | Viz LVO | Viz.ai | Aidoc ICH | Brainomix | qER | 灌流 | 脑灌注 | 관류 | перфузия
    virtuell nativ | rMTT | Tmax map | Electron Density
"""
NO_AGENT = """
    KEIN | Aucun | ninguno | SIN | none | N/A | Yok | - | . | SANS INJECTION | sans IV | non injecté | ohne KM | IV-
    uten kontrast | NO IV CONTRAST | without contrast | NONE / NO CONTRAST
    bez kontrastu | без контраста | нет | なし | 无 | 없음 | 造影なし
"""
AGENT = """
    OMNIPAQUE 350 | IV | avec injection | KM | 造影剤 | контраст | Iomeron | a text of another kind
"""


def names(text: str) -> list[str]:
    return [name.strip() for line in text.strip().splitlines() for name in line.split("|")]


@pytest.mark.parametrize("name", names(PLAIN))
def test_plain_series_of_a_head(name: str) -> None:
    assert not vocabulary.names_contrast(name)
    assert not vocabulary.names_bone(name)
    assert not vocabulary.names_map(name)
    assert not vocabulary.names_other_part(name, "")
    assert not vocabulary.names_report(name)
    assert not vocabulary.names_localizer(name)


@pytest.mark.parametrize("name", names(CONTRAST))
def test_contrast(name: str) -> None:
    assert vocabulary.names_contrast(name)


@pytest.mark.parametrize("name", names(BONE))
def test_bone(name: str) -> None:
    assert vocabulary.names_bone(name)


@pytest.mark.parametrize("name", names(OTHER_PART))
def test_other_part_of_the_body(name: str) -> None:
    assert vocabulary.names_other_part(name, "")


@pytest.mark.parametrize("name", names(LOCALIZER))
def test_localizer(name: str) -> None:
    assert vocabulary.names_localizer(name)


@pytest.mark.parametrize("name", names(REPORT))
def test_report(name: str) -> None:
    assert vocabulary.names_report(name)


@pytest.mark.parametrize("name", names(MAPS))
def test_map(name: str) -> None:
    assert vocabulary.names_map(name)


@pytest.mark.parametrize("name", ["VNC head", "Virtual Non-Contrast", "VUE", "VNI 5mm", "MAT_REMOVED", "virtuell nativ"])
def test_contrast_taken_away_by_computation(name: str) -> None:
    assert vocabulary.names_virtual_plain(name)
    assert vocabulary.names_map(name)


def spellings(word: str) -> list[str]:
    """Names that a row of the vocabulary stands for: every choice of its ``~``, with and without letters for its ``*``."""
    return [word.replace("~", gap).replace("*", end) for gap in (" ", "-", "") for end in ("", "XY")]


@pytest.mark.parametrize("word", [row.word for row in read_words(TABLE) if row.kind == "virtual_plain"])
def test_every_word_for_computed_plain_is_one_for_a_map_too(word: str) -> None:
    for name in spellings(word):
        assert vocabulary.names_virtual_plain(name), name
        assert vocabulary.names_map(name), name


@pytest.mark.parametrize("agent", names(NO_AGENT))
def test_no_agent(agent: str) -> None:
    assert not vocabulary.names_agent(agent)


@pytest.mark.parametrize("agent", names(AGENT))
def test_agent(agent: str) -> None:
    assert vocabulary.names_agent(agent)


@pytest.mark.parametrize("name", ["IV " * 80, "KONTRAST" * 40, "NO " * 90 + "C", "W" * 5000, "контраст " * 30])
def test_long_names_are_searched_in_no_time(name: str) -> None:
    began = time.perf_counter()
    vocabulary.names_contrast(name), vocabulary.names_map(name), vocabulary.names_report(name)
    assert time.perf_counter() - began < 1
