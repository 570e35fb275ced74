"""What series are called, by vendors and in hospitals of many languages."""

import pytest

from ich_lstm.reading import words

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
"""
BONE = """
    Knochen 1.0 Hr60 | Felsenbein | fenêtre osseuse | OS 0.6 | ROCHERS | ventana ósea | HUESO | Osso | finestra ossea
    janela óssea
    bot 1mm | KEMIK | okno kostne | Kość | KOTSU | 骨 | 骨窗 | Bones | INNER EAR
"""
OTHER_PART = """
    HWS nativ | Hals | Thorax | Abdomen | NNH | BWS | Wirbelsäule | Becken | RACHIS CERVICAL | COU | THORAX SANS | Bassin
    cuello | COLUMNA CERVICAL | TÓRAX | ABDOMEN SIMPLE | collo | torace | ADDOME | rachide | PESCOÇO | Coluna | TÓRAX SEM
    nek | buik | BOYUN | TORAKS | szyja | klatka piersiowa | JAMA BRZUSZNA brzuch | KEIBU | KYOUBU | 胸部 | 頸部
    C-SPINE | Sinuses | Lungs 1.0 | CHEST ABD PELVIS
"""
LOCALIZER = """
    Topogramm | Übersicht | UEBERSICHT | Lokalisator | Repérage | TOPO | localizador | Escanograma | topogramma
    LOCALIZZATORE | overzicht
    skanogram | SCANO | Scout | SURVIEW | Pilot | 定位 | DINGWEI
"""
REPORT = """
    Dosisbericht | Dosisprotokoll | Patientenprotokoll | Patient Protocol | Dose Report | Rapport de dose | Informe de dosis
    Relatório | Referto | DOZ RAPORU | raport | Screen Save | Screen Shots | Exam Summary | Key Images | Befund
"""
MAPS = """
    Jodkarte | Iode | Perfusie | Perfusión | PERFUSIONE | perfuzja | VNC | MIP 10 | MinIP | VRT | 3D | CBF
    Rapid Tmax | Mono 40 keV
    Knochenentfernung | subtraction | Subtraktion
"""


def names(text: str) -> list[str]:
    return [name.strip() for line in text.strip().splitlines() for name in line.split("|")]


@pytest.mark.parametrize("name", names(PLAIN))
def test_plain_series_of_a_head(name: str) -> None:
    assert not words.names_contrast(name)
    assert not words.names_bone(name)
    assert not words.names_map(name)
    assert not words.names_other_part(name, "")
    assert not words.REPORT.search(words.normal_form(name))
    assert not words.LOCALIZER.search(words.normal_form(name))


@pytest.mark.parametrize("name", names(CONTRAST))
def test_contrast(name: str) -> None:
    assert words.names_contrast(name)


@pytest.mark.parametrize("name", names(BONE))
def test_bone(name: str) -> None:
    assert words.names_bone(name)


@pytest.mark.parametrize("name", names(OTHER_PART))
def test_other_part_of_the_body(name: str) -> None:
    assert words.names_other_part(name, "")


@pytest.mark.parametrize("name", names(LOCALIZER))
def test_localizer(name: str) -> None:
    assert words.LOCALIZER.search(words.normal_form(name))


@pytest.mark.parametrize("name", names(REPORT))
def test_report(name: str) -> None:
    assert words.REPORT.search(words.normal_form(name))


@pytest.mark.parametrize("name", names(MAPS))
def test_map(name: str) -> None:
    assert words.names_map(name)


@pytest.mark.parametrize("agent", ["KEIN", "Aucun", "ninguno", "SIN", "none", "N/A", "Yok"])
def test_no_agent(agent: str) -> None:
    assert not words.names_agent(agent)
